"""Errors that a user can act on, and the nearest name to a mistyped one."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake in what the user gave: one line that names the thing, the reason and the cure.

    The command line prints the line and exits with code 2. What can be known before a run begins is said then, and nothing on
    disk has been touched.
    """


def missing_extra(what: str, extra: str) -> UserError:
    """The error for a package that is not installed, of an optional group of packages.

    Args:
        what: what needs it, for example "studies need".
        extra: the group's name in pyproject.toml.
    """
    return UserError(
        f"{what} the extra '{extra}': pip install 'osmose[{extra}]', or in a clone pip install -e '.[{extra}]'"
    )


def check(valid: bool, key: str, value: object, rule: str) -> None:
    """Raise a `UserError` unless a setting is valid.

    Args:
        valid: whether it is.
        key: the setting's name in the recipe.
        value: what the user gave.
        rule: what it may be.
    """
    if not valid:
        raise UserError(f"key '{key}' is {value!r}: set it to {rule}")


def first_line(error: Exception) -> str:
    """The first line of what another library said, or its kind where it said nothing: what a `UserError` quotes."""
    return (str(error) or type(error).__name__).splitlines()[0]


_LISTED = 40
"""Names that an error lists at most."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not registered, with the nearest known one, or with all; of very many, the outermost.

    Args:
        kind: what the name stands for, for example "method".
        name: what the user wrote.
        known: every name that would have been accepted.
    """
    names = sorted(known, key=lambda each: (each.count("."), each))
    near = get_close_matches(name, names, n=1, cutoff=0.5) or [each for each in names if each.lower() == name.lower()]
    listed = ", ".join(names[:_LISTED]) or "none"
    others = f" and {len(names) - _LISTED} others" if len(names) > _LISTED else ""
    cure = f"did you mean '{near[0]}'?" if near else f"known: {listed}{others}"
    return UserError(f"unknown {kind} '{name}': {cure}")
