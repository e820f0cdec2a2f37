"""Micro-batches for the training loop: what the loader reads, as networks see it, on the device."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from osmose.data.batch import Batch, Signals
from osmose.data.blend import Blend
from osmose.data.corpus import learned
from osmose.data.crops import Crops
from osmose.data.loader import Loader, Shard
from osmose.data.views import Views
from osmose.random import generator


class LoaderFeed(ABC):
    """One view of every training sample an epoch.

    Args:
        loader: deals out the samples.
        device: where the micro-batches go.
    """

    def __init__(self, loader: Loader, device: torch.device) -> None:
        self.loader, self.device = loader, device

    def __len__(self) -> int:
        """Optimiser steps in an epoch."""
        return len(self.loader)

    @property
    def shapes(self) -> Sequence[tuple[int, ...]]:
        """The shape of one sample as networks see it; of several crops one for each size."""
        return [tuple(self.loader.split.inputs.shape)]

    def epoch(self, epoch: int, first_step: int, mine: Sequence[int]) -> Iterator[Batch]:
        """The shards `mine` of every global batch of `epoch` from `first_step` on."""
        view = self.view(epoch)
        for number, shard in enumerate(self.loader.epoch(epoch, first_step, mine, view if self.numbered else None)):
            step, part = first_step + number // len(mine), mine[number % len(mine)]
            yield self.finish(self.seen(shard, view), epoch, step, part)

    def in_order(self, view: int, rank: int, processes: int) -> Iterator[Batch]:
        """A view of every sample of the training part once, in its order, of several processes each its share.

        The last micro-batch may be smaller.
        """
        rows = torch.arange(len(self.loader.split)).split(self.loader.shard_size)[rank::processes]
        for shard in self.loader.read(list(rows), view, generator(self.loader.seed, "data/in-order", view)):
            yield self.seen(shard, view)

    numbered: bool = True
    """Whether what networks see is a numbered view, of which signals can be kept."""

    @abstractmethod
    def view(self, epoch: int) -> int:
        """The number of the view that an epoch shows."""

    @abstractmethod
    def seen(self, shard: Shard, view: int) -> Batch:
        """A view of a shard, on the device."""

    def finish(self, batch: Batch, epoch: int, step: int, part: int) -> Batch:
        """The micro-batch that the method gets, from a view of it, given its step in the epoch and its number in the step."""
        return batch

    def there(self, tensor: Tensor) -> Tensor:
        """The tensor on the device."""
        return tensor.to(self.device, non_blocking=True)

    def signals(self, shard: Shard) -> Signals:
        """The shard's signals on the device."""
        return {
            role: {name: self.there(said) for name, said in fields.items()} for role, fields in shard.signals.items()
        }


class ViewFeed(LoaderFeed):
    """Images through numbered views.

    Args:
        loader: deals out the samples.
        views: what is done to their images, on the device.
        device: where the micro-batches go.
        blend: what is done to each micro-batch after that.
        classes: number of classes; None for numbers as labels.
    """

    def __init__(self, loader: Loader, views: Views, device: torch.device, blend: Blend, classes: int | None) -> None:
        super().__init__(loader, device)
        self.views, self.blend, self.classes = views, blend, classes
        self.numbered = blend.name == "none"

    def view(self, epoch: int) -> int:
        """As the settings of the views say."""
        return self.views.number(epoch)

    def seen(self, shard: Shard, view: int) -> Batch:
        """The images through the view."""
        index = self.there(shard.numbers)
        x = self.views(self.there(shard.inputs), index, view)
        y = None if shard.labels is None else self.there(shard.labels)
        return Batch(index=index, view=view, x=x, y=y, signals=self.signals(shard))

    def finish(self, batch: Batch, epoch: int, step: int, part: int) -> Batch:
        """The blend of the batch's images."""
        return self.blend(batch, self.classes, self.loader.seed, epoch, step, part)


class CropFeed(LoaderFeed):
    """Images through numbered views of many crops.

    Args:
        loader: deals out the samples.
        crops: what is made of their images, on the device.
        device: where the micro-batches go.
    """

    numbered = False

    def __init__(self, loader: Loader, crops: Crops, device: torch.device) -> None:
        super().__init__(loader, device)
        self.crops = crops

    @property
    def shapes(self) -> Sequence[tuple[int, ...]]:
        """Of a global crop, and of a local one where there are any."""
        channels, height, width = self.loader.split.inputs.shape
        return [(channels, *size) for size in self.crops.sizes((height, width))][: 2 if self.crops.locals else 1]

    def view(self, epoch: int) -> int:
        """As the settings of the crops say."""
        return self.crops.number(epoch)

    def seen(self, shard: Shard, view: int) -> Batch:
        """The crops of the view."""
        index = self.there(shard.numbers)
        crops = self.crops(self.there(shard.inputs), index, view)
        return Batch(index=index, view=view, x=crops[0][0], y=None, crops=crops)


class PlainFeed(LoaderFeed):
    """Whole numbers, such as a user's and an item's, of which there is one view."""

    def view(self, epoch: int) -> int:
        """Always the first."""
        return 0

    def seen(self, shard: Shard, view: int) -> Batch:
        """The numbers and their labels."""
        assert shard.labels is not None
        y = self.there(shard.labels)
        return Batch(
            index=self.there(shard.numbers),
            view=view,
            x=self.there(shard.inputs).long(),
            y=y if y.is_floating_point() else y.long(),
            signals=self.signals(shard),
        )


class TextFeed(PlainFeed):
    """Blocks of tokens.

    Args:
        loader: deals out the blocks.
        device: where the micro-batches go.
    """

    def __init__(self, loader: Loader, device: torch.device) -> None:
        super().__init__(loader, device)
        assert loader.split.labels is not None
        self._learned = learned(loader.split.labels)
        self._counts: list[float] = []

    def epoch(self, epoch: int, first_step: int, mine: Sequence[int]) -> Iterator[Batch]:
        """The shards `mine` of every global batch, each with its step's `Batch.count`."""
        steps = self._learned[self.loader.order(epoch)][: len(self) * self.loader.batch_size].view(len(self), -1)
        self._counts = (steps.sum(1) / (self.loader.batch_size / self.loader.shard_size)).tolist()
        yield from super().epoch(epoch, first_step, mine)

    def finish(self, batch: Batch, epoch: int, step: int, part: int) -> Batch:
        """With the number of tokens that the whole step learns, over its micro-batches."""
        return replace(batch, count=max(1.0, self._counts[step]))
