"""`python -m osmose` is the command `osmose`."""

import sys

from osmose.cli import main

sys.exit(main())
