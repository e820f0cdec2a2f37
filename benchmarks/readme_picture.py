"""Draws docs/images/transfer.svg: what `make transfer` shows, from the folder of its finished run.

python benchmarks/readme_picture.py RUN_FOLDER
"""

import json
import sys
from pathlib import Path

from rich.console import Console

from osmose.cli import show_transfer

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    console = Console(record=True, width=88, file=open("/dev/null", "w"), highlight=False)  # noqa: SIM115
    console.print("$ make transfer", style="bold")
    show_transfer(json.loads((folder / "result.json").read_text()), console)
    console.save_svg("docs/images/transfer.svg", title="osmose transfer")
