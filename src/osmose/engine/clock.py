"""Where a run stands. Every schedule and random stream is a pure function of the clock."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

from osmose.random import stream


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The position of one micro-batch in a run.

    Attributes:
        step: optimiser steps taken so far.
        steps_per_epoch: optimiser steps in one pass over the training part.
        epochs: passes in the whole run.
        batch_size: samples in one optimiser step, over all devices and accumulated micro-batches.
        seed: the run's seed.
        shard: which part of the global batch this micro-batch is; the same part has the same number on any count of devices.
    """

    step: int
    steps_per_epoch: int
    epochs: int
    batch_size: int
    seed: int = 0
    shard: int = 0

    @property
    def epoch(self) -> int:
        """The current pass, from 0."""
        return self.step // self.steps_per_epoch

    @property
    def total(self) -> int:
        """Optimiser steps in the whole run."""
        return self.epochs * self.steps_per_epoch

    def stream(self, name: str) -> AbstractContextManager[None]:
        """A block in which torch's global generators draw from the stream `name` at this step and shard (see `osmose.random`)."""
        return stream(self.seed, name, self.step, self.shard)
