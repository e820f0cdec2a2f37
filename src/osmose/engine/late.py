"""A number read from the device one step after it was computed, so that the host never waits for the step just issued."""

import torch
from torch import Tensor


class Late:
    """Holds one vector of numbers until the next one comes."""

    def __init__(self) -> None:
        self._held: Tensor | None = None
        self._copied: torch.cuda.Event | None = None

    def swap(self, numbers: Tensor) -> list[float] | None:
        """Take a vector in and give back the one before, or None at the first call."""
        before = self.read()
        self._held = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=numbers.is_cuda)
        self._held.copy_(numbers.detach(), non_blocking=True)
        if numbers.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()
        return before

    def read(self) -> list[float] | None:
        """The vector that is held; on a GPU this waits for its copy alone."""
        if self._held is None:
            return None
        if self._copied is not None:
            self._copied.synchronize()
        values: list[float] = self._held.tolist()
        return values

    def restore(self, values: list[float] | None) -> None:
        """Hold what `read` gave before."""
        self._held = None if values is None else torch.tensor(values)
        self._copied = None
