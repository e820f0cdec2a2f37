"""The arguments that may follow a model's name."""

from typing import Any

import yaml

from osmose.errors import UserError


def options(name: str, text: str) -> dict[str, Any]:
    """The arguments `key=value,...` in a part of a model's name, values as in YAML.

    Raises:
        UserError: for what is no such argument.
    """
    found = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not key or not equals:
            raise UserError(
                f"model '{name}': '{part}' is no option: write KEY=VALUE, for example fresh:zoo:vit-s,patch=4"
            )
    return found
