"""What a data source is."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from torch import Tensor

from osmose.data.images import Decoding
from osmose.data.split import Split
from osmose.errors import UserError


@dataclass(frozen=True)
class Parts:
    """What a source hands over.

    Args:
        train: everything but the test part and a held-out part of the source's own; numbered from 0.
        classes: class names in label order, where known.
        heldout: the source's own held-out part.
        test: reads the test part. None: the source has none, so one is held out of `train`.
    """

    train: Split
    classes: tuple[str, ...] | None
    heldout: Split | None = None
    test: Callable[[], Split] | None = None


@dataclass(frozen=True)
class Source:
    """A kind of data set: its name, whether a folder follows the name (`name:DIR`), and how it is opened.

    `open` gets the folder (None when none was given) and how to decode; it raises UserError for bad files.
    """

    name: str
    folder: Literal["none", "optional", "needed"]
    description: str
    licence: str
    available: Callable[[], bool]
    open: Callable[[Path | None, Decoding], Parts]

    @property
    def usage(self) -> str:
        """How the name is written."""
        return self.name + {"none": "", "optional": "[:DIR]", "needed": ":DIR"}[self.folder]


def installed(*packages: str) -> bool:
    """Whether all packages can be imported, without importing them."""
    return all(find_spec(package) for package in packages)


def check_labels(labels: Tensor, classes: int, path: Path) -> None:
    """Raise UserError unless every label is in 0..classes-1."""
    for label in map(int, labels.aminmax()):
        if not 0 <= label < classes:
            raise UserError(f"{path} has the label {label}, outside 0 to {classes - 1}: give files with these classes")
