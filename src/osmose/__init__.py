"""Osmose moves knowledge between trained neural networks.

`transfer` teaches a student what a teacher knows; `run` executes a recipe; `study` runs a grid of them; `compare` tells what
models know that others do not; `load_model`, `load_data` and
`load_ratings` give networks and data by name. `osmose.targets` and `osmose.losses` are for loops of one's own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from osmose.api import Result, run, study, transfer
    from osmose.comparison import compare
    from osmose.data import load_data, load_ratings
    from osmose.errors import UserError
    from osmose.models import load_model

__version__ = "0.1.0"

_HOMES = {
    "transfer": "osmose.api",
    "run": "osmose.api",
    "study": "osmose.api",
    "compare": "osmose.comparison",
    "Result": "osmose.api",
    "load_data": "osmose.data",
    "load_ratings": "osmose.data",
    "load_model": "osmose.models",
    "UserError": "osmose.errors",
}

__all__ = ["Result", "UserError", "compare", "load_data", "load_model", "load_ratings", "run", "study", "transfer"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in ("losses", "targets"):
        return import_module(f"osmose.{name}")
    raise AttributeError(f"module 'osmose' has no attribute '{name}'")
