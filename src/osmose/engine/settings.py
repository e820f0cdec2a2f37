"""The settings of a training run that every method shares."""

from dataclasses import dataclass
from typing import Literal

from osmose.errors import check

Precision = Literal["32-true", "bf16-mixed"]
"""float32; or float32 weights and bfloat16 arithmetic where torch's autocast finds it safe."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long, on what and how reproducibly to train.

    Args:
        epochs: passes over the training part.
        batch_size: samples in one optimiser step, over all devices and accumulated micro-batches; of text 16 blocks.
        accumulate: micro-batches in one optimiser step on each device.
        devices: processes, each with a device of its own; under torchrun the number it started.
        sharded: of method language, spread weights, gradients and optimiser state over the processes (FSDP2).
        accelerator: cpu, cuda, or auto for the best there is.
        precision: arithmetic of the networks that train.
        frozen_precision: arithmetic of the frozen networks; what they say is float32 in either case.
        workers: loader processes; 0 reads in the training process.
        threads: CPU threads of a process; none leaves torch's choice.
        deterministic: on a GPU, only algorithms that give the same bits each time.
        seed: seed of every random stream but the views', which have their own.
        log_every: optimiser steps between two lines of metrics.jsonl.
        checkpoint_every: optimiser steps between two checkpoints; none for one after each epoch.
    """

    epochs: int = 20
    batch_size: int = 256
    accumulate: int = 1
    devices: int = 1
    sharded: bool = False
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "32-true"
    frozen_precision: Precision = "32-true"
    workers: int = 0
    threads: int | None = None
    deterministic: bool = False
    seed: int = 0
    log_every: int = 50
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "accumulate", "devices", "log_every"):
            check(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")
        for key in ("threads", "checkpoint_every"):
            check(getattr(self, key) is None or getattr(self, key) >= 1, key, getattr(self, key), "at least 1, or null")
        check(self.workers >= 0, "workers", self.workers, "at least 0")
