"""Fashion-MNIST whole (Xiao, Rasul, Vollgraf: arXiv 1708.07747)."""

from pathlib import Path

from osmose.data.images import Decoding
from osmose.data.sources.idx import open_idx
from osmose.data.sources.source import Parts, Source
from osmose.errors import UserError

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files."""


def open_fashion_mnist(folder: Path | None, decoding: Decoding) -> Parts:
    """60,000 training and 10,000 test images from `folder`, or from where Debian puts them."""
    if folder is None and not DEBIAN.is_dir():
        raise UserError(f"fashion-mnist is not in {DEBIAN}: apt install dataset-fashion-mnist, "
                        "or give its folder as fashion-mnist:DIR, or use fashion-mnist-mini")  # fmt: skip
    return open_idx(folder or DEBIAN, CLASSES)


SOURCE = Source(
    name="fashion-mnist",
    folder="optional",
    description="60,000 training and 10,000 test images, 28x28 grey, from DIR or Debian's dataset-fashion-mnist",
    licence="MIT (Zalando SE)",
    available=lambda: DEBIAN.is_dir(),
    open=open_fashion_mnist,
)
