"""Images in the idx layout of MNIST (http://yann.lecun.com/exdb/mnist/)."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch

from osmose.data.images import Decoding
from osmose.data.inputs import MemoryInputs
from osmose.data.sources.source import Parts, Source, check_labels
from osmose.data.split import Split
from osmose.errors import UserError


def open_idx(folder: Path, classes: tuple[str, ...] | None = None) -> Parts:
    """The parts train-*-ubyte and t10k-*-ubyte of `folder`, each file plain or with .gz.

    Raises:
        UserError: for a file that is missing, truncated, or not in this format.
    """
    train_files, test_files = _files(folder, "train"), _files(folder, "t10k")
    train = _split(*train_files, classes)
    return Parts(train, classes, test=lambda: _split(*test_files, classes))


def read_idx(path: Path, dimensions: int) -> torch.Tensor:
    """The uint8 array of `dimensions` axes in an idx file, plain or gzip; raises UserError for any other content."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}): fetch it again") from error
    header = 4 + 4 * dimensions
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) < header:
        raise UserError(f"{path} is not an idx file of {dimensions}-dimensional bytes: give MNIST's layout")
    shape = np.frombuffer(data, ">u4", count=dimensions, offset=4).tolist()
    if len(data) - header != np.prod(shape):
        raise UserError(f"{path} holds {len(data) - header} bytes where its header promises {shape}: fetch it again")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=header).reshape(shape)


def _files(folder: Path, part: str) -> tuple[Path, Path]:
    found = []
    for stem in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"):
        path = next((p for p in (folder / stem, folder / f"{stem}.gz") if p.is_file()), None)
        if path is None:
            raise UserError(f"{folder} has no file {stem} or {stem}.gz: give a folder in MNIST's layout")
        found.append(path)
    return found[0], found[1]


def _split(image_file: Path, label_file: Path, classes: tuple[str, ...] | None) -> Split:
    images, labels = read_idx(image_file, 3), read_idx(label_file, 1).long()
    if len(images) != len(labels) or not len(labels):
        raise UserError(f"{image_file} has {len(images)} images and {label_file.name} {len(labels)} labels: "
                        "give files that belong together")  # fmt: skip
    if classes:
        check_labels(labels, len(classes), label_file)
    return Split(MemoryInputs(images[:, None]), labels, torch.arange(len(labels)))


def _open(folder: Path | None, decoding: Decoding) -> Parts:
    assert folder is not None
    return open_idx(folder)


SOURCE = Source(
    name="idx",
    folder="needed",
    description="grey images in MNIST's idx layout: train-images-idx3-ubyte[.gz] and so on",
    licence="that of the files",
    available=lambda: True,
    open=_open,
)
