"""A queue of features (MoCo, arXiv 1911.05722)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osmose.processes import all_gather

_UNLIKE = -1e4
"""A product of directions that no sample has: its share of a softmax is 0, and the logarithm of that finite."""


class Queue(nn.Module):
    """So many rows of which the oldest give way; before there are as many samples, random directions.

    Args:
        size: how many rows.
        width: numbers in a row.
    """

    rows: Tensor
    numbers: Tensor
    place: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("rows", F.normalize(torch.randn(size, width), dim=-1))
        self.register_buffer("numbers", torch.full((size,), -1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self._seen: list[tuple[Tensor, Tensor]] = []

    def likeness(self, features: Tensor, own: Tensor, numbers: Tensor) -> Tensor:
        """Products of features [n, width] with a row of their own [n, width], and with every row, [n, 1 + size].

        Rows that the samples themselves, of these `numbers` [n], left an epoch ago are as unlike as nothing is.
        """
        others = (features @ self.rows.T).masked_fill(self.numbers == numbers.unsqueeze(1), _UNLIKE)
        return torch.cat([(features * own).sum(-1, keepdim=True), others], 1)

    def see(self, numbers: Tensor, features: Tensor) -> None:
        """Keep the features [n, width] of samples `numbers` [n] for `after_step`."""
        self._seen.append((numbers, features.detach()))

    @torch.no_grad()
    def after_step(self) -> None:
        """Take in what all processes have seen since the last step, in the order of the samples' numbers."""
        numbers, features = (all_gather(torch.cat(parts)) for parts in zip(*self._seen, strict=True))
        self._seen.clear()
        size = len(self.rows)
        newest = numbers.argsort()[-size:]
        places = (self.place + torch.arange(len(newest), device=numbers.device)) % size
        self.rows[places] = features[newest]
        self.numbers[places] = numbers[newest]
        self.place.copy_((self.place + len(newest)) % size)
