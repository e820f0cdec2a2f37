"""McNemar's exact test against scipy's binomial test."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from osmose.evaluate import mcnemar

stats = pytest.importorskip("scipy.stats")


def models(gained, lost, both, neither):
    first = torch.tensor([False] * gained + [True] * lost + [True] * both + [False] * neither)
    second = torch.tensor([True] * gained + [False] * lost + [True] * both + [False] * neither)
    return first, second


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5), st.integers(1, 5))
def test_small_counts(gained, lost, both, neither):
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(*models(gained, lost, both, neither)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("gained", "lost"), [(400, 300), (1000, 1000), (5000, 4700), (9000, 10), (0, 3000)])
def test_large_counts(gained, lost):
    expected = stats.binomtest(gained, gained + lost).pvalue
    assert mcnemar(*models(gained, lost, 3, 3)) == pytest.approx(expected, rel=1e-7)


def test_the_order_of_the_models_does_not_matter():
    first, second = models(12, 3, 5, 5)
    assert mcnemar(first, second) == mcnemar(second, first)
