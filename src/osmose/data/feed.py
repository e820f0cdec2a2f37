"""Micro-batches for the training loop: the loader's images, seen through numbered views, on the device."""

from collections.abc import Iterator, Sequence

import torch

from osmose.data.batch import Batch
from osmose.data.loader import Loader
from osmose.data.views import Views


class ViewFeed:
    """One view of every training sample an epoch.

    Args:
        loader: deals out the samples.
        views: what is done to their images, on the device.
        device: where the micro-batches go.
    """

    def __init__(self, loader: Loader, views: Views, device: torch.device) -> None:
        self.loader, self.views, self.device = loader, views, device

    def __len__(self) -> int:
        """Optimiser steps in an epoch."""
        return len(self.loader)

    def epoch(self, epoch: int, first_step: int, mine: Sequence[int]) -> Iterator[Batch]:
        """The shards `mine` of every global batch of `epoch` from `first_step` on."""
        view = self.views.number(epoch)
        for index, images, labels in self.loader.epoch(epoch, first_step, mine):
            images = images.to(self.device, non_blocking=True)
            index = index.to(self.device, non_blocking=True)
            x = self.views(images, index, view)
            y = None if labels is None else labels.to(self.device, non_blocking=True)
            yield Batch(index=index, view=view, x=x, y=y)
