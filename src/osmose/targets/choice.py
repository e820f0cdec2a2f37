"""What a target gives for a batch."""

from dataclasses import dataclass

from torch import Tensor

MEAN, NOBODY, INITIAL, FIRST_TEACHER = -2, -1, 0, 1


@dataclass
class Choice:
    """The logits each sample is taught with, and whose they are.

    Attributes:
        logits: [n, c], no gradient.
        source: int64 [n]: 0 the initial student, k the k-th teacher, -1 nobody (the sample is left out of the loss), -2 a mean
            of several networks.
    """

    logits: Tensor
    source: Tensor
