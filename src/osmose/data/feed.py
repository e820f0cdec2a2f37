"""Micro-batches for the training loop: the loader's images, seen through numbered views, on the device."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from osmose.data.batch import Batch
from osmose.data.blend import Blend
from osmose.data.loader import Loader, Shard
from osmose.data.views import Views
from osmose.random import generator


class ViewFeed:
    """One view of every training sample an epoch.

    Args:
        loader: deals out the samples.
        views: what is done to their images, on the device.
        device: where the micro-batches go.
        blend: what is done to each micro-batch after that.
        classes: number of classes; None for numbers as labels.
    """

    def __init__(self, loader: Loader, views: Views, device: torch.device, blend: Blend, classes: int | None) -> None:
        self.loader, self.views, self.device, self.blend, self.classes = loader, views, device, blend, classes

    def __len__(self) -> int:
        """Optimiser steps in an epoch."""
        return len(self.loader)

    def epoch(self, epoch: int, first_step: int, mine: Sequence[int]) -> Iterator[Batch]:
        """The shards `mine` of every global batch of `epoch` from `first_step` on."""
        view = self.views.number(epoch)
        asked = view if self.blend.name == "none" else None
        for number, shard in enumerate(self.loader.epoch(epoch, first_step, mine, asked)):
            step, part = first_step + number // len(mine), mine[number % len(mine)]
            yield self.blend(self._seen(shard, view), self.classes, self.loader.seed, epoch, step, part)

    def in_order(self, view: int, rank: int, processes: int) -> Iterator[Batch]:
        """A view of every sample of the training part once, in its order, of several processes each its share.

        The last micro-batch may be smaller.
        """
        rows = torch.arange(len(self.loader.split)).split(self.loader.shard_size)[rank::processes]
        for shard in self.loader.read(list(rows), view, generator(self.loader.seed, "data/in-order", view)):
            yield self._seen(shard, view)

    def _seen(self, shard: Shard, view: int) -> Batch:
        def there(tensor: Tensor) -> Tensor:
            return tensor.to(self.device, non_blocking=True)

        index = there(shard.numbers)
        signals = {role: {name: there(said) for name, said in fields.items()} for role, fields in shard.signals.items()}
        y = None if shard.labels is None else there(shard.labels)
        return Batch(index=index, view=view, x=self.views(there(shard.images), index, view), y=y, signals=signals)
