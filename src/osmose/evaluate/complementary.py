"""Complementary knowledge: what a teacher knows that a student does not, class by class (arXiv 2310.17653, section 3)."""

from collections.abc import Sequence

import torch
from torch import Tensor


def flips_by_class(student: Tensor, teacher: Tensor, labels: Tensor, classes: int) -> Tensor:
    """How many positive flips each class has, int64 [classes].

    Args:
        student: booleans [n] "is right".
        teacher: the same.
        labels: int64 [n].
        classes: how many there are.
    """
    return labels[teacher & ~student].bincount(minlength=classes)


def entropy(counts: Tensor) -> float | None:
    """Of the distribution of flips over classes, in nats; the uniform distribution has log(classes). None without flips."""
    shares = counts[counts > 0].double() / counts.sum()
    return float(-(shares * shares.log()).sum()) + 0.0 if len(shares) else None


def top_classes(counts: Tensor, share: float) -> list[int]:
    """The fewest classes that hold at least `share` percent of the flips, most first, equal ones in their order."""
    order = counts.argsort(descending=True, stable=True)
    held = counts[order].cumsum(0) * 100
    needed = int((held < share * int(counts.sum())).sum()) + 1
    return order[:needed].tolist() if counts.any() else []


def relative_similarity(classes: Sequence[int], similarities: Tensor) -> float | None:
    """How much more alike some classes are than all: the mean similarity of their pairs over that of all pairs, less one.

    Args:
        classes: the classes; of fewer than two it is None.
        similarities: [c, c], for example cosines of embedded class names.
    """
    if len(classes) < 2:
        return None
    everywhere = _mean_of_pairs(similarities)
    return float((_mean_of_pairs(similarities[list(classes)][:, list(classes)]) - everywhere) / everywhere)


def transfer_rate(
    before: Tensor, after: Tensor, teacher: Tensor, labels: Tensor, classes: Sequence[int]
) -> float | None:
    """Of the teacher's positive flips in some classes the percentage that the student got right; None where there are none.

    Args:
        before: booleans [n] "is right" of the student before the transfer.
        after: the same after it.
        teacher: the same of the teacher.
        labels: int64 [n].
        classes: the classes.
    """
    flips = teacher & ~before & torch.isin(labels, torch.tensor(list(classes), dtype=labels.dtype))
    return 100.0 * int((flips & after).sum()) / int(flips.sum()) if flips.any() else None


def _mean_of_pairs(similarities: Tensor) -> Tensor:
    count = len(similarities)
    above = torch.triu(torch.ones(count, count, dtype=torch.bool), diagonal=1)
    return similarities[above].double().mean()
