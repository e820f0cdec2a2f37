"""Deals a split out in batches whose order depends on the seed and the epoch alone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.utils.data
from torch import Tensor

from osmose.data.batch import Signals
from osmose.data.split import Split
from osmose.errors import UserError
from osmose.random import generator


class Shard(NamedTuple):
    """Part of a batch as it was read.

    Attributes:
        numbers: int64 [S] sample numbers.
        inputs: [S, ...] as the split has them, for images uint8 [S, C, H, W].
        labels: [S], or None.
        signals: what was on disk of what frozen networks say of the view that is asked for.
    """

    numbers: Tensor
    inputs: Tensor
    labels: Tensor | None
    signals: Signals


class Readable(Protocol):
    """What is on disk of what a frozen network says; `osmose.signals.Kept` is it."""

    def read(self, view: int, numbers: Tensor) -> Mapping[str, Tensor]:
        """By field, float32 [n, ...] of samples `numbers`; without fields of which some are not there."""


class Loader:
    """An epoch is a permutation of the split, cut into global batches, each cut into equal consecutive shards.

    Args:
        split: the samples.
        batch_size: samples of a global batch, that is of a step. What is left over at the end of the permutation is
            dropped; of a smaller split as many as divide into the shards are one batch, and the attribute is their number.
        seed: the run's seed.
        shards: parts of a global batch, accumulation steps times processes.
        workers: processes that read ahead; order and content are the same for any number.
        kept: what is read beside the inputs, by role.

    Raises:
        UserError: when the shards cannot be equal.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        seed: int,
        shards: int = 1,
        workers: int = 0,
        kept: Mapping[str, Readable] | None = None,
    ) -> None:
        if batch_size < 1 or batch_size % shards:
            raise UserError(f"batch size {batch_size} does not divide into {shards} equal shards (accumulation steps x "
                            f"processes): set it to a multiple of {shards}")  # fmt: skip
        if len(split) < shards:
            raise UserError(f"{len(split)} training samples are too few for {shards} shards: give more samples")
        self.split, self.seed, self.workers, self.kept = split, seed, workers, kept or {}
        self.shard_size = min(batch_size, len(split)) // shards
        self.batch_size = self.shard_size * shards

    def __len__(self) -> int:
        """Steps of an epoch."""
        return max(1, len(self.split) // self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """int64, the rows of the split in the order of an epoch."""
        return torch.randperm(len(self.split), generator=generator(self.seed, "data", epoch))

    def epoch(
        self, epoch: int, first_step: int = 0, mine: Sequence[int] = (0,), view: int | None = None
    ) -> Iterator[Shard]:
        """The shards numbered `mine` of every global batch from `first_step` on, in this order, with signals of `view`.

        Rank r of w processes with a accumulation steps takes [m * w + r for m in range(a)].
        """
        order = self.order(epoch)
        starts = (
            step * self.batch_size + shard * self.shard_size for step in range(first_step, len(self)) for shard in mine
        )
        rows = [order[start : start + self.shard_size] for start in starts]
        return self.read(rows, view, generator(self.seed, "data/workers", epoch))

    def read(self, rows: list[Tensor], view: int | None, workers: torch.Generator) -> Iterator[Shard]:
        """Some rows of the split after another, with signals of `view`; what the loader's workers draw comes from `workers`."""
        reader = _Reader(self.split, self.kept if view is not None else {}, view or 0)
        if not self.workers:
            yield from map(reader.read, rows)
            return
        read_ahead = torch.utils.data.DataLoader(
            reader,
            batch_size=None,
            sampler=rows,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            generator=workers,
        )
        for shard in read_ahead:
            if isinstance(shard, UserError):
                raise shard
            yield Shard(*shard)


class _Reader(torch.utils.data.Dataset[Shard | UserError]):
    """Reads rows; in a worker a UserError is handed on as a value, because DataLoader would wrap it in a traceback."""

    def __init__(self, split: Split, kept: Mapping[str, Readable], view: int) -> None:
        self.split, self.kept, self.view = split, kept, view

    def read(self, rows: Tensor) -> Shard:
        labels = None if self.split.labels is None else self.split.labels[rows]
        index = self.split.index[rows]
        signals = {role: one.read(self.view, index) for role, one in self.kept.items()}
        return Shard(index, self.split.inputs.read(rows), labels, signals)

    def __getitem__(self, rows: Tensor) -> Shard | UserError:
        try:
            return self.read(rows)
        except UserError as error:
            return error
