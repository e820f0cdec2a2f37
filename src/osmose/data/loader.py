"""Deals a split out in batches whose order depends on the seed and the epoch alone."""

from collections.abc import Iterator, Sequence

import torch
import torch.utils.data
from torch import Tensor

from osmose.data.split import Split
from osmose.errors import UserError
from osmose.random import generator

Shard = tuple[Tensor, Tensor, Tensor | None]
"""Sample numbers, uint8 images and labels."""


class Loader:
    """An epoch is a permutation of the split, cut into global batches, each cut into equal consecutive shards.

    Args:
        split: the samples.
        batch_size: samples of a global batch, that is of a step. What is left over at the end of the permutation is
            dropped; of a smaller split as many as divide into the shards are one batch, and the attribute is their number.
        seed: the run's seed.
        shards: parts of a global batch, accumulation steps times processes.
        workers: processes that read ahead; order and content are the same for any number.

    Raises:
        UserError: when the shards cannot be equal.
    """

    def __init__(self, split: Split, *, batch_size: int, seed: int, shards: int = 1, workers: int = 0) -> None:
        if batch_size < 1 or batch_size % shards:
            raise UserError(f"batch size {batch_size} does not divide into {shards} equal shards (accumulation steps x "
                            f"processes): set it to a multiple of {shards}")  # fmt: skip
        if len(split) < shards:
            raise UserError(f"{len(split)} training samples are too few for {shards} shards: give more samples")
        self.split, self.seed, self.workers = split, seed, workers
        self.shard_size = min(batch_size, len(split)) // shards
        self.batch_size = self.shard_size * shards

    def __len__(self) -> int:
        """Steps of an epoch."""
        return max(1, len(self.split) // self.batch_size)

    def epoch(self, epoch: int, first_step: int = 0, mine: Sequence[int] = (0,)) -> Iterator[Shard]:
        """The shards numbered `mine` of every global batch from `first_step` on, in this order.

        Rank r of w processes with a accumulation steps takes [m * w + r for m in range(a)].

        Yields:
            int64 [S] sample numbers, uint8 [S, C, H, W] images, labels [S] or None.
        """
        order = torch.randperm(len(self.split), generator=generator(self.seed, "data", epoch))
        starts = (
            step * self.batch_size + shard * self.shard_size for step in range(first_step, len(self)) for shard in mine
        )
        rows = [order[start : start + self.shard_size] for start in starts]
        reader = _Reader(self.split)
        if not self.workers:
            yield from map(reader.read, rows)
            return
        read_ahead = torch.utils.data.DataLoader(
            reader,
            batch_size=None,
            sampler=rows,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            generator=generator(self.seed, "data/workers", epoch),
        )
        for shard in read_ahead:
            if isinstance(shard, UserError):
                raise shard
            index, images, labels = shard
            yield index, images, labels


class _Reader(torch.utils.data.Dataset[Shard | UserError]):
    """Reads rows; in a worker a UserError is handed on as a value, because DataLoader would wrap it in a traceback."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def read(self, rows: Tensor) -> Shard:
        labels = None if self.split.labels is None else self.split.labels[rows]
        return self.split.index[rows], self.split.images.read(rows), labels

    def __getitem__(self, rows: Tensor) -> Shard | UserError:
        try:
            return self.read(rows)
        except UserError as error:
            return error
