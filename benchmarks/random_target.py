"""The control of study default-pair: as many samples as the partition gives to each network there, but any ones.

osmose study benchmarks/random_target.yaml --import benchmarks/random_target.py --output results/default-pair-control --jobs 2
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from osmose.targets.choice import Choice
from osmose.targets.registry import TARGETS, Target

INITIAL = 0.5297
"""The share of samples that the initial student taught in the study's rows kl-dp."""


def at_random(student: Tensor, initial: Tensor, teachers: Sequence[Tensor], labels: Any) -> Choice:
    """Whom chance names, anew in each step."""
    source = (torch.rand(len(initial)) >= INITIAL).long().to(initial.device)
    return Choice(torch.where(source.bool().unsqueeze(-1), teachers[0], initial), source)


TARGETS["at-random"] = Target("by chance", at_random, initial=True)
