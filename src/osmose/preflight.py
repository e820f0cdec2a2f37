"""What runs would refuse before their first step, found in a process of its own, which gives a GPU back when it ends."""

import json
import subprocess
import sys
from collections.abc import Mapping

from osmose import user_code
from osmose.errors import UserError
from osmose.execution import check
from osmose.recipe import Plain, Recipe, resolve


def refusal(recipes: Mapping[str, Recipe]) -> tuple[str, str] | None:
    """The first of several runs that cannot begin, by name, and the reason in one line; None where all can.

    What is no user's mistake, such as a GPU that is too small, is left to the run itself.
    """
    command = [sys.executable, "-m", "osmose.preflight", *map(str, user_code.imported)]
    asked = json.dumps({name: recipe.plain() for name, recipe in recipes.items()})
    answer = subprocess.run(command, input=asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    found: list[str] | None = json.loads(answer.stdout) if answer.returncode == 0 else None
    return (found[0], found[1]) if found else None


def _first(recipes: Mapping[str, Plain]) -> tuple[str, str] | None:
    for name, plain in recipes.items():
        try:
            check(resolve(plain))
        except UserError as error:
            return name, str(error)
        except Exception:  # the run will say it, in its log
            continue
    return None


if __name__ == "__main__":
    for path in sys.argv[1:]:
        user_code.import_file(path)
    print(json.dumps(_first(json.load(sys.stdin))))
