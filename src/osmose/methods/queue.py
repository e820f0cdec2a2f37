"""The features of the last samples, which later ones are compared with (MoCo, arXiv 1911.05722)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osmose.processes import all_gather


class Queue(nn.Module):
    """So many rows of which the oldest give way; before there are as many samples, random directions.

    Args:
        size: how many rows.
        width: numbers in a row.
    """

    rows: Tensor
    place: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("rows", F.normalize(torch.randn(size, width), dim=-1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self._seen: list[tuple[Tensor, Tensor]] = []

    def see(self, numbers: Tensor, features: Tensor) -> None:
        """Keep the features [n, width] of samples `numbers` [n] for `after_step`."""
        self._seen.append((numbers, features.detach()))

    @torch.no_grad()
    def after_step(self) -> None:
        """Take in what all processes have seen since the last step, in the order of the samples' numbers."""
        numbers, features = (all_gather(torch.cat(parts)) for parts in zip(*self._seen, strict=True))
        self._seen.clear()
        size = len(self.rows)
        newest = features[numbers.argsort()][-size:]
        places = (self.place + torch.arange(len(newest), device=numbers.device)) % size
        self.rows[places] = newest
        self.place.copy_((self.place + len(newest)) % size)
