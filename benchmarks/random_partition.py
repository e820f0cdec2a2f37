"""The control of study language-partition: tokens are given to the initial student and the teacher at random.

    osmose study benchmarks/random_partition.yaml --import benchmarks/random_partition.py \
        --output results/language-partition-control --jobs 2
"""

import torch
from torch import Tensor

from osmose.data.batch import Batch
from osmose.methods.language import Language
from osmose.methods.registry import METHODS
from osmose.random import generator


class AtRandom(Language):
    """`Language` with a partition that asks nobody; a token has the same teacher in every epoch."""

    summary = "a control: tokens are given to initial student and teacher at random"
    initial_share: float

    def _partition(self, batch: Batch) -> Tensor:
        length = batch.x.shape[-1]
        drawn = [torch.rand(length, generator=generator(0, "at-random", index)) for index in batch.index.tolist()]
        return (torch.cat(drawn) >= self.initial_share).long().to(batch.x.device)


for percent in (2, 5, 10, 20):
    METHODS[f"language-at-random-{percent}"] = type("AtRandom", (AtRandom,), {"initial_share": percent / 100})
