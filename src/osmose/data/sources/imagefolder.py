"""Image files in one folder a class."""

import hashlib
from functools import partial
from pathlib import Path
from typing import BinaryIO

import torch

from osmose.data.images import DecodedImages, Decoding, settle
from osmose.data.sources.source import Parts, Source, installed
from osmose.data.split import Split
from osmose.errors import UserError


class ImageFiles:
    """Encoded images in files below `folder`."""

    def __init__(self, folder: Path, paths: list[Path]) -> None:
        self.folder, self.paths = folder, paths

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, row: int) -> BinaryIO:
        """The file at `row`."""
        return self.paths[row].open("rb")

    def name(self, row: int) -> str:
        """Its path."""
        return str(self.paths[row])

    def digest(self) -> bytes:
        """Of the files' relative names, sizes and times of change."""
        seen = ((path.relative_to(self.folder), path.stat()) for path in self.paths)
        lines = (f"{name} {status.st_size} {status.st_mtime_ns}\n" for name, status in seen)
        return hashlib.sha256("".join(lines).encode()).digest()


def open_imagefolder(folder: Path | None, decoding: Decoding) -> Parts:
    """DIR/train/CLASS/* with DIR/test or DIR/val beside it, or DIR/CLASS/* alone; hidden files are left out."""
    assert folder is not None
    train_folder = folder / "train" if (folder / "train").is_dir() else folder
    test_folder = next((p for p in (folder / "test", folder / "val") if train_folder != folder and p.is_dir()), None)
    classes = _class_names(train_folder)
    if test_folder and _class_names(test_folder) != classes:
        odd = min(set(_class_names(test_folder)) ^ set(classes))
        raise UserError(f"class '{odd}' is not in both {train_folder} and {test_folder}: give both the same classes")
    images, labels = list_images(train_folder, classes)
    decoded = DecodedImages(images, decoding)
    test = partial(_test, *list_images(test_folder, classes), decoded) if test_folder else None
    return Parts(Split(decoded, labels, torch.arange(len(labels))), classes, test=test)


def _test(images: ImageFiles, labels: torch.Tensor, train: DecodedImages) -> Split:
    return Split(settle(DecodedImages(images, train.decoding, train.shape)), labels, torch.arange(len(labels)))


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if not names:
        raise UserError(
            f"{folder} has no class folders: put the images into one folder a class, or, without labels, all into one "
            "folder in it, with data.labelled false"
        )
    return names


def list_images(folder: Path, classes: tuple[str, ...]) -> tuple[ImageFiles, torch.Tensor]:
    """The files in the class folders of `folder`, and their labels; raises UserError for an empty one."""
    paths, labels = [], []
    for label, name in enumerate(classes):
        of_class = sorted(p for p in (folder / name).iterdir() if p.is_file() and not p.name.startswith("."))
        if not of_class:
            raise UserError(f"class folder {folder / name} holds no images: fill or remove it")
        paths += of_class
        labels += [label] * len(of_class)
    return ImageFiles(folder, paths), torch.tensor(labels)


SOURCE = Source(
    name="imagefolder",
    folder="needed",
    description="DIR/train/CLASS/*.png, *.jpg, ... with DIR/test or DIR/val; without them a fifth is held out as test",
    licence="that of the files",
    available=lambda: installed("PIL"),
    open=open_imagefolder,
)
