"""A part of a data set, and the choice of samples by class."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from osmose.data.inputs import Inputs, Rows


@dataclass(frozen=True)
class Split:
    """Samples with their labels and numbers.

    Args:
        inputs: where what networks see comes from.
        labels: int64 [N] classes, booleans [N, classes] where a sample has several (evaluation only), or float32 [N] values; None
            when unlabelled.
        index: int64 [N] sample numbers, the same in every subset.
    """

    inputs: Inputs
    labels: Tensor | None
    index: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def subset(self, rows: Tensor) -> "Split":
        """The samples at `rows` (int64) under their old numbers."""
        labels = None if self.labels is None else self.labels[rows]
        return Split(Rows(self.inputs, rows), labels, self.index[rows])

    def unlabelled(self) -> "Split":
        """The same samples without their labels."""
        return replace(self, labels=None)


def stratified(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Rows of `count` samples in which every class has its share of `labels`, by largest remainder.

    Args:
        labels: int64 [N] classes; values of another type are one class.
        count: how many rows, at most N.
        generator: source of the choice.

    Returns:
        int64 [count], ascending.
    """
    classes = torch.zeros_like(labels, dtype=torch.int64) if labels.is_floating_point() else labels
    sizes = classes.bincount()
    quota, remainder = sizes * count // len(classes), sizes * count % len(classes)
    quota[remainder.argsort(descending=True, stable=True)[: count - int(quota.sum())]] += 1
    shuffled = torch.randperm(len(classes), generator=generator)
    by_class = shuffled[classes[shuffled].argsort(stable=True)]
    rank = torch.arange(len(classes)) - (sizes.cumsum(0) - sizes)[classes[by_class]]
    return by_class[rank < quota[classes[by_class]]].sort().values
