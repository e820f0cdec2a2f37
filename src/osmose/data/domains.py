"""Versions of a test set: as it is, corrupted, and folders of other images of the same classes or of some of them."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from osmose.data.corruptions import Corruption
from osmose.data.images import DecodedImages, Decoding
from osmose.data.sources.imagefolder import ImageFiles, list_images
from osmose.data.split import Split
from osmose.errors import UserError
from osmose.random import seed_of

REAL = "real.json"
"""ReaL's labels (arXiv 2006.07159): for the n-th validation image all classes that it shows."""


@dataclass(frozen=True)
class Domain(Dataset[Tensor]):
    """Labelled samples on which networks are tested; as a torch data set, their images as uint8 [C, H, W].

    Attributes:
        group: what belongs together in a summary: a corruption's name, or the folder that the user gave.
        split: the samples; their labels number `columns`.
        corruption: what is done to an image; the same sample always comes out the same.
        columns: int64, the classes that the labels are of and that compete; None for all classes.
        part: tells the domains of a group apart, as the severity does.
    """

    group: str
    split: Split
    corruption: Corruption | None = None
    columns: Tensor | None = None
    part: str = ""

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, row: int) -> Tensor:
        image = self.split.inputs.read(torch.tensor([row]))[0]
        if self.corruption is None:
            return image
        seed = seed_of(self.corruption.severity, f"corruption/{self.corruption.name}", int(self.split.index[row]))
        corrupted = self.corruption(image.permute(1, 2, 0).numpy(), seed)
        return torch.from_numpy(np.ascontiguousarray(corrupted.transpose(2, 0, 1)))


def corrupted(split: Split, corruption: Corruption) -> Domain:
    """The samples, each corrupted."""
    return Domain(corruption.name, split, corruption, part=str(corruption.severity))


def open_domains(
    folder: Path, classes: tuple[str, ...], decoding: Decoding, shape: tuple[int, int, int]
) -> list[Domain]:
    """The sets of test images in a folder, in the layouts of ImageNet's variants.

    - CLASS/*, or val/CLASS/*: one set (ImageNet-A, -R, -Sketch, -V2, Stylized). Classes are called as `classes` are, or by
      their numbers from 0; there may be fewer of them, and then only these compete.
    - CORRUPTION/SEVERITY/CLASS/*: a set for each severity (ImageNet-C).
    - real.json beside either or beside the images: ReaL's labels; images of no class are left out.

    Args:
        folder: the folder.
        classes: the names of all classes, in the order of the networks' logits.
        decoding: how images are read; with a size, for images of several sizes.
        shape: channels, height and width of the data's images.

    Raises:
        UserError: when the folder is in none of these layouts or has a class that is not known.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give one with a folder of images a class")
    if (folder / REAL).is_file():
        return [_real(folder, classes, decoding, shape)]
    severities = sorted({path.parent for path in folder.glob("*/[1-5]/*") if path.is_dir()})
    if severities:
        return [
            replace(_plain(path, classes, decoding, shape), group=folder.name, part=f"{path.parent.name} {path.name}")
            for path in severities
        ]
    inside = folder / "val" if (folder / "val").is_dir() else folder
    return [replace(_plain(inside, classes, decoding, shape), group=folder.name)]


def _plain(folder: Path, classes: tuple[str, ...], decoding: Decoding, shape: tuple[int, int, int]) -> Domain:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise UserError(f"{folder} has no class folders: put the images into one folder a class")
    numbers = [_number(name, classes, folder) for name in names]
    files, labels = list_images(folder, tuple(names))
    images = DecodedImages(files, decoding, shape)
    columns = None if numbers == list(range(len(classes))) else torch.tensor(numbers)
    if columns is not None and len(names) == len(classes):  # all classes, numbered in the order of their names as text
        labels, columns = columns[labels], None
    return Domain(folder.name, Split(images, labels, torch.arange(len(labels))), columns=columns)


def _number(name: str, classes: tuple[str, ...], folder: Path) -> int:
    if name in classes:
        return classes.index(name)
    if name.isdigit() and int(name) < len(classes):
        return int(name)
    raise UserError(
        f"{folder} has the class '{name}', which the networks do not know: name its folders as the data's classes are "
        f"({', '.join(classes[:2])}, ...), or by their numbers"
    )


def _real(folder: Path, classes: tuple[str, ...], decoding: Decoding, shape: tuple[int, int, int]) -> Domain:
    try:
        shown = json.loads((folder / REAL).read_text())
        several = torch.zeros(len(shown), len(classes), dtype=torch.bool)
        for row, numbers in enumerate(shown):
            several[row, torch.tensor(numbers, dtype=torch.int64)] = True
        if not several.any():
            raise ValueError("no image has a class")
    except (OSError, ValueError, TypeError, IndexError, RuntimeError) as error:
        raise UserError(
            f"{folder / REAL} is not a list of lists of class numbers below {len(classes)} ({error}): fetch ReaL's real.json"
        ) from None
    paths = sorted((path for path in folder.rglob("*_val_*") if path.is_file()), key=lambda path: path.name)
    if len(paths) != len(several):
        raise UserError(
            f"{folder} has {len(paths)} images called *_val_NUMBER and {REAL} labels for {len(several)}: "
            "give the whole validation set"
        )
    rows = several.any(1).nonzero().flatten()
    images = DecodedImages(ImageFiles(folder, [paths[row] for row in rows.tolist()]), decoding, shape)
    return Domain(folder.name, Split(images, several[rows], rows))
