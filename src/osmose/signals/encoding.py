"""What a network said of a sample as bytes, and back."""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

_TYPES = {"float32": torch.float32, "float16": torch.float16}


class Encoding(Protocol):
    """One field of a record: logits, features, tokens or a hidden state.

    Attributes:
        name: tells encodings apart that give other bytes; part of a file's path.
        size: bytes of a sample.
    """

    name: str
    size: int

    def encode(self, values: Tensor, labels: Tensor | None) -> np.ndarray:
        """uint8 [n, size] from float32 or int64 [n, ...] and int64 [n] true classes, both on the CPU."""

    def decode(self, raw: np.ndarray) -> Tensor:
        """float32 or int64 [n, ...] from uint8 [n, size]."""


class Dense:
    """All numbers, in float32 or float16.

    Args:
        shape: of one sample's numbers.
        dtype: "float32" or "float16".
    """

    def __init__(self, shape: Sequence[int], dtype: str) -> None:
        self.shape, self.dtype = tuple(shape), _TYPES[dtype]
        self.name = dtype
        self.size = math.prod(self.shape) * self.dtype.itemsize

    def encode(self, values: Tensor, labels: Tensor | None) -> np.ndarray:
        """Rounded to the type; labels are not looked at."""
        return _bytes(values.to(self.dtype).reshape(len(values), -1))

    def decode(self, raw: np.ndarray) -> Tensor:
        """In the shape they came in."""
        return _numbers(raw, self.dtype).float().reshape(len(raw), *self.shape)


class Whole:
    """Whole numbers from 0 to below `count`, in as few bytes as they take.

    Args:
        shape: of one sample's numbers.
        count: how many different ones there may be.
    """

    def __init__(self, shape: Sequence[int], count: int) -> None:
        self.shape = tuple(shape)
        self.width = next(width for width in range(1, 9) if count <= 256**width)
        self.name = f"whole-{self.width}"
        self.size = math.prod(self.shape) * self.width

    def encode(self, values: Tensor, labels: Tensor | None) -> np.ndarray:
        """The lowest bytes of each; labels are not looked at."""
        flat = values.reshape(len(values), -1).numpy().astype("<i8")
        return np.ascontiguousarray(flat.view(np.uint8).reshape(*flat.shape, 8)[..., : self.width]).reshape(
            len(flat), -1
        )

    def decode(self, raw: np.ndarray) -> Tensor:
        """int64, in the shape they came in."""
        wide = np.zeros((*raw.shape[:1], raw.shape[1] // self.width, 8), np.uint8)
        wide[..., : self.width] = raw.reshape(len(raw), -1, self.width)
        return torch.from_numpy(wide.view("<i8").reshape(len(raw), *self.shape).astype(np.int64))


class TopK:
    """Logits as the log-probabilities of the k most probable classes and of the true class, and how much is left to all others.

    They are decoded to log-probabilities of all classes, in which the others share the rest evenly: a softmax gives the kept
    classes the probabilities they had, also the highest and the true class's, which partitions compare.

    Args:
        k: classes that are kept beside the true one; without labels k + 1 are.
        classes: how many there are.
        dtype: of the log-probabilities, "float32" or "float16".
    """

    def __init__(self, k: int, classes: int, dtype: str) -> None:
        self.kept, self.classes = min(k + 1, classes), classes
        self.dtype = _TYPES[dtype]
        self.places = torch.int16 if classes <= 2**15 else torch.int32
        self.name = f"top-{self.kept - 1}-{dtype}"
        self.size = self.kept * (self.dtype.itemsize + self.places.itemsize) + 4

    def encode(self, values: Tensor, labels: Tensor | None) -> np.ndarray:
        """Classes, log-probabilities, and the logarithm of the rest."""
        log_p = values.float().log_softmax(-1)
        classes = log_p.topk(self.kept, dim=-1).indices
        if labels is not None:
            there = (classes == labels.unsqueeze(-1)).any(-1)
            classes[:, -1] = torch.where(there, classes[:, -1], labels)
        rest = log_p.scatter(-1, classes, -math.inf).logsumexp(-1, keepdim=True)
        parts = classes.to(self.places), log_p.gather(-1, classes).to(self.dtype), rest
        return np.concatenate([_bytes(part) for part in parts], axis=1)

    def decode(self, raw: np.ndarray) -> Tensor:
        """float32 log-probabilities [n, classes]."""
        width = self.kept * self.places.itemsize
        classes = _numbers(raw[:, :width], self.places).long()
        log_p = _numbers(raw[:, width:-4], self.dtype).float()
        rest = _numbers(raw[:, -4:], torch.float32)
        others = max(1, self.classes - self.kept)
        return (rest - math.log(others)).expand(-1, self.classes).scatter(-1, classes, log_p)


def _bytes(values: Tensor) -> np.ndarray:
    return values.contiguous().view(torch.uint8).numpy()


def _numbers(raw: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(raw.copy()).view(dtype)
