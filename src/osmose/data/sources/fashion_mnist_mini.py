"""The embedded data set: a part of Fashion-MNIST's training images and all its test images."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from osmose.data.images import Decoding
from osmose.data.inputs import MemoryInputs
from osmose.data.sources.source import Parts, Source
from osmose.data.split import Split

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def open_mini(folder: Path | None, decoding: Decoding) -> Parts:
    """12,000 images to train on, 6,000 held out (numbered after them), and 10,000 to test on."""
    train = read("train")
    return Parts(train, CLASSES, heldout=read("heldout", start=len(train)), test=lambda: read("test"))


def read(part: str, start: int = 0) -> Split:
    """The part "train", "heldout" or "test", its samples numbered from `start`."""
    with files("osmose.data").joinpath("fashion_mnist_mini", f"{part}.npz").open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        images, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
    return Split(MemoryInputs(images[:, None]), labels.long(), start + torch.arange(len(labels)))


SOURCE = Source(
    name="fashion-mnist-mini",
    folder="none",
    description="12,000 training, 6,000 held-out and all 10,000 test images of Fashion-MNIST, 28x28 grey; embedded",
    licence="MIT (Zalando SE)",
    available=lambda: True,
    open=open_mini,
)
