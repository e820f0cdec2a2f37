"""Augmentors by name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from osmose.augmentors.affine import Affine
from osmose.augmentors.augmentor import Augmentor
from osmose.augmentors.chain import Chain
from osmose.augmentors.gaussian import Gaussian
from osmose.augmentors.generator import Generative
from osmose.augmentors.mix import Mix
from osmose.errors import UserError, unknown
from osmose.weights import read_weights

AUGMENTORS: dict[str, type[Augmentor]] = {"gaussian": Gaussian, "affine": Affine, "mix": Mix, "generator": Generative}

Section = str | Mapping[str, Any] | Sequence[Any]
"""A name, its settings with the key "name", or several of these: one augmentor after another."""


def make_augmentor(section: Section) -> Augmentor:
    """The augmentor that a recipe's section describes.

    Raises:
        UserError: for an unknown name or setting, or a value out of range.
    """
    if isinstance(section, str):
        section = {"name": section}
    if isinstance(section, Mapping):
        settings = {key: value for key, value in section.items() if key != "name"}
        made = find_augmentor(section.get("name"))(**settings)
    else:
        made = Chain([make_augmentor(part) for part in section])
    made.section = section
    return made


def find_augmentor(name: object) -> type[Augmentor]:
    """The augmentor of that name.

    Raises:
        UserError: when there is none.
    """
    if name not in AUGMENTORS:
        raise unknown("augmentor", str(name), AUGMENTORS)
    return AUGMENTORS[str(name)]


def load_augmentor(path: str | Path) -> Augmentor:
    """The augmentor that a run saved.

    Raises:
        UserError: when the file is missing or is none of an augmentor with a name.
    """
    tensors, about = read_weights(Path(path))
    if not about.get("augmentor"):
        raise UserError(f"'{path}' does not say which augmentor it holds: give a run's augmentor.safetensors")
    augmentor = make_augmentor(about["augmentor"])
    augmentor.fit(tuple(about["shape"]))
    augmentor.load_state_dict(tensors)
    return augmentor
