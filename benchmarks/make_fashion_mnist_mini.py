"""Make the package's embedded data set from Fashion-MNIST.

    python benchmarks/make_fashion_mnist_mini.py [DIR]

DIR holds Fashion-MNIST in its idx layout; without it Debian's dataset-fashion-mnist is taken. Of the training images
1,200 a class go to train.npz and 600 a class to heldout.npz, both in the original order; test.npz holds every test
image. Each file has `images` uint8 [N, 28, 28] and `labels` uint8 [N].
"""

import sys
from pathlib import Path

import numpy as np
import torch

from osmose.data.sources.fashion_mnist import DEBIAN
from osmose.data.sources.idx import read_idx
from osmose.data.split import stratified
from osmose.random import generator


def main(folder: Path, out: Path) -> None:
    """Write train.npz, heldout.npz and test.npz to `out`."""

    def read(part: str) -> tuple[torch.Tensor, torch.Tensor]:
        paths = [next(folder.glob(f"{part}-{kind}*")) for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
        return read_idx(paths[0], 3), read_idx(paths[1], 1)

    def write(part: str, images: torch.Tensor, labels: torch.Tensor) -> None:
        np.savez_compressed(out / f"{part}.npz", images=images.numpy(), labels=labels.numpy())
        print(f"{part}: {len(labels)} images, {(out / f'{part}.npz').stat().st_size / 1e6:.1f} MB")

    images, labels = read("train")
    chosen = stratified(labels.long(), 18_000, generator(0, "fashion-mnist-mini"))
    images, labels = images[chosen], labels[chosen]
    train = torch.zeros(len(labels), dtype=torch.bool)
    train[stratified(labels.long(), 12_000, generator(0, "fashion-mnist-mini/train"))] = True
    write("train", images[train], labels[train])
    write("heldout", images[~train], labels[~train])
    write("test", *read("t10k"))


if __name__ == "__main__":
    package = Path(__file__).parents[1] / "src/osmose/data/fashion_mnist_mini"
    main(Path(sys.argv[1]) if sys.argv[1:] else DEBIAN, package)
