"""What images and ratings share: networks that answer each sample with a row of numbers."""

import time
from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric

from osmose.data.dataset import Dataset
from osmose.data.ratings import Ratings
from osmose.evaluate import predict
from osmose.evaluate.heldout import HeldOut
from osmose.models.model import Predictor
from osmose.models.network import Network
from osmose.signals import Frozen
from osmose.tasks.task import Task


@dataclass
class NetworkTask(Task, ABC):
    """A task of networks that a sample is shown to."""

    data: Dataset | Ratings
    student: Predictor
    initial: Predictor
    teachers: dict[str, Network]

    def frozen(self, network: Network, device: torch.device) -> Frozen:
        return Frozen(network, device, mixed=self.recipe.frozen_precision == "bf16-mixed")

    def score(self, student: Callable[[], Predictor], fabric: Fabric) -> Callable[[], dict[str, float]] | None:
        heldout = self.data.heldout
        return None if heldout is None else HeldOut(self.initial, student, heldout, fabric)

    def seconds_of_evaluation(self) -> float:
        split = self.data.heldout
        if split is None:
            return 0.0
        some = split.subset(torch.arange(min(500, len(split))))
        started = time.monotonic()
        predict(self.student, some)
        return (time.monotonic() - started) * len(split) / len(some)
