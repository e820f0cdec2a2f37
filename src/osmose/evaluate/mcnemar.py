"""McNemar's exact test of two classifiers on the same samples (McNemar 1947)."""

import math

from torch import Tensor


def mcnemar(first: Tensor, second: Tensor) -> float:
    """Two-sided p-value of the hypothesis that both are right equally often, from booleans [n] "is right".

    Of the samples on which they differ, the number on which the second is right is Binomial(differing, 1/2) under it.
    """
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    differing, fewer = gained + lost, min(gained, lost)
    log_half = differing * math.log(2)
    tail = math.fsum(
        math.exp(math.lgamma(differing + 1) - math.lgamma(k + 1) - math.lgamma(differing - k + 1) - log_half)
        for k in range(fewer + 1)
    )
    return min(1.0, 2 * tail)
