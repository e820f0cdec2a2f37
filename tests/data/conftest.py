"""A small data set in the idx layout."""

import gzip
from pathlib import Path

import numpy as np
import pytest


def _write_idx(path: Path, array) -> None:
    array = np.asarray(array, np.uint8)
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    data = header + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def write_idx():
    """Writes an array of bytes as an idx file."""
    return _write_idx


@pytest.fixture
def folder(tmp_path):
    """100 training images, 70 of class 0 and 30 of class 1, and 6 test images."""
    rng = np.random.default_rng(0)
    _write_idx(tmp_path / "train-images-idx3-ubyte.gz", rng.integers(0, 256, (100, 4, 5)))
    _write_idx(tmp_path / "train-labels-idx1-ubyte", [0] * 70 + [1] * 30)
    _write_idx(tmp_path / "t10k-images-idx3-ubyte", rng.integers(0, 256, (6, 4, 5)))
    _write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", [1, 0, 1, 0, 1, 0])
    return tmp_path
