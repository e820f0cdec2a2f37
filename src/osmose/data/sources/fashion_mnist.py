"""Fashion-MNIST whole (Xiao, Rasul, Vollgraf: arXiv 1708.07747)."""

from dataclasses import replace
from pathlib import Path

import torch

from osmose.data.images import Decoding
from osmose.data.sources.fashion_mnist_mini import CLASSES, read
from osmose.data.sources.idx import open_idx
from osmose.data.sources.source import Parts, Source
from osmose.data.split import Split
from osmose.errors import UserError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files."""


def open_fashion_mnist(folder: Path | None, decoding: Decoding) -> Parts:
    """60,000 training and 10,000 test images from `folder`, or from where Debian puts them.

    What `fashion-mnist-mini` holds out is held out here too: the zoo was trained beside it and has never seen it.
    """
    if folder is None and not DEBIAN.is_dir():
        raise UserError(f"fashion-mnist is not in {DEBIAN}: apt install dataset-fashion-mnist, "
                        "or give its folder as fashion-mnist:DIR, or use fashion-mnist-mini")  # fmt: skip
    parts = open_idx(folder or DEBIAN, CLASSES)
    unseen = set(_pictures(read("heldout")))
    held = torch.tensor([picture in unseen for picture in _pictures(parts.train)])
    if not held.any():
        return parts
    return replace(
        parts,
        train=parts.train.subset((~held).nonzero().flatten()),
        heldout=parts.train.subset(held.nonzero().flatten()),
    )


def _pictures(split: Split) -> list[bytes]:
    """The bytes of each image."""
    return [image.tobytes() for image in split.inputs.read(torch.arange(len(split))).numpy()]


SOURCE = Source(
    name="fashion-mnist",
    folder="optional",
    description="60,000 training and 10,000 test images, 28x28 grey, from DIR or Debian's dataset-fashion-mnist",
    licence="MIT (Zalando SE)",
    available=lambda: DEBIAN.is_dir(),
    open=open_fashion_mnist,
)
