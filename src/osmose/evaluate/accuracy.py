"""Accuracy."""

from torch import Tensor


def accuracy(right: Tensor) -> float:
    """Percentage of samples that are right, from booleans [n]."""
    return 100.0 * int(right.sum()) / len(right)
