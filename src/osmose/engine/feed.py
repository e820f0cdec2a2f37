"""Where the loop's micro-batches come from."""

from collections.abc import Iterator
from typing import Protocol

from osmose.data.batch import Batch


class Feed(Protocol):
    """Deals micro-batches; `osmose.data.feed.ViewFeed` is the one for images."""

    def __len__(self) -> int:
        """Optimiser steps in an epoch."""

    def epoch(self, epoch: int, first_step: int, mine: list[int]) -> Iterator[Batch]:
        """The micro-batches `mine` of every global batch of an epoch from `first_step` on, on the device."""
