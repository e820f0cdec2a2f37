"""What networks see of the samples of a data set, read by row."""

import hashlib
from abc import ABC, abstractmethod

from torch import Tensor


class Inputs(ABC):
    """One tensor of one shape for each sample."""

    shape: tuple[int, ...]
    """Of one sample's tensor: channels, height, width of an image."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def read(self, rows: Tensor) -> Tensor:
        """The tensors at `rows` (int64 [B]) as [B, ...]."""

    @abstractmethod
    def digest(self) -> bytes:
        """Identifies the content."""


class MemoryInputs(Inputs):
    """Held as one tensor [N, ...]: uint8 of images, whole numbers of tokens and ratings, floats of anything else."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.shape = tuple(values.shape[1:])

    def __len__(self) -> int:
        return len(self.values)

    def read(self, rows: Tensor) -> Tensor:
        """A copy of what is at `rows`."""
        return self.values[rows]

    def digest(self) -> bytes:
        """Of the shape and all values."""
        content = hashlib.sha256(repr(tuple(self.values.shape)).encode())
        content.update(self.values.contiguous().numpy().data)
        return content.digest()


class Rows(Inputs):
    """The rows `rows` (int64 [N]) of other inputs."""

    def __init__(self, inputs: Inputs, rows: Tensor) -> None:
        self.inputs: Inputs
        self.rows: Tensor
        if isinstance(inputs, Rows):
            self.inputs, self.rows = inputs.inputs, inputs.rows[rows]
        else:
            self.inputs, self.rows = inputs, rows
        self.shape = inputs.shape

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, rows: Tensor) -> Tensor:
        """The tensors at `rows` of these rows."""
        return self.inputs.read(self.rows[rows])

    def digest(self) -> bytes:
        """Of the other inputs' digest and the rows."""
        return hashlib.sha256(self.inputs.digest() + self.rows.numpy().tobytes()).digest()
