"""Runs in a row, where a later one starts from an earlier one's student."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from osmose.engine.fabric import make_fabric
from osmose.engine.folder import RunFolder
from osmose.errors import UserError
from osmose.execution import Result, check_names, execute
from osmose.processes import together
from osmose.recipe import Recipe, completed


def execute_stages(stages: Mapping[str, Recipe], output: Path, *, fresh: bool = False, quiet: bool = False) -> Result:
    """Run stages in order, each in the folder of its name inside `output`; finished ones are not run again.

    Args:
        stages: recipes by name; `$NAME` in one is the student that stage NAME left.
        output: the folder.
        fresh: discard what is in the folder.
        quiet: show no progress.

    Returns:
        The last stage's result; its numbers are {"stages": {name: numbers}}.

    Raises:
        UserError: as `execute`, and when the folder holds other stages, or stages want different numbers of devices.
        Interrupted: as `execute`.
    """
    check_names(stages.values())
    if len({recipe.devices for recipe in stages.values()}) > 1:
        raise UserError(
            "stages have different numbers of devices, and one command runs all: give one key 'devices' beside them"
        )
    fabric = make_fabric(next(iter(stages.values())))
    plain = {"stages": [{"name": name, **recipe.plain()} for name, recipe in stages.items()]}
    with ExitStack() as stack:
        with together(fabric):
            folder = RunFolder(output, plain, fresh=fresh, owner=fabric.is_global_zero, completed=completed)
            stack.enter_context(folder)
        products = {f"${name}": output / name for name in stages}
        results = {
            name: execute(recipe, output / name, fresh=fresh, quiet=quiet, products=products, begins=folder.begin)
            for name, recipe in stages.items()
        }
        numbers = {"stages": {name: result.numbers for name, result in results.items()}}
        with together(fabric):
            if fabric.is_global_zero:
                folder.begin()  # again, where every stage was finished and none began it
                folder.finish(numbers)
    return Result(results[list(results)[-1]].student, numbers, output)
