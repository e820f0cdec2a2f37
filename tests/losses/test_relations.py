"""Distances and angles between samples, one pair and one triplet at a time."""

import math

import pytest
import torch

from osmose.losses.relations import angles, distances

X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_distances_are_over_their_mean():
    found = distances(X)
    plain = [[math.dist(a, b) for b in X.tolist()] for a in X.tolist()]
    mean = sum(map(sum, plain)) / 20  # of the pairs of different samples
    torch.testing.assert_close(found, torch.tensor(plain, dtype=torch.float64) / mean)


def test_angles_are_those_of_triplets():
    found = angles(X)
    for i in range(5):
        for j in range(5):
            for k in range(5):
                if i in (j, k):
                    expected = 0.0
                else:
                    a, b = X[j] - X[i], X[k] - X[i]
                    expected = float(a @ b / (a.norm() * b.norm()))
                assert found[i, j, k].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("relation", [distances, angles])
def test_gradients(relation):
    assert torch.autograd.gradcheck(relation, X.clone().requires_grad_())


def test_equal_samples_have_finite_gradients():
    x = torch.ones(3, 2, requires_grad=True)
    (distances(x).sum() + angles(x).sum()).backward()
    assert x.grad.isfinite().all()


def test_they_are_computed_wide_whatever_runs_around():
    plain = distances(X.float()), angles(X.float())
    with torch.autocast("cpu", torch.bfloat16):
        for relation, expected in zip((distances, angles), plain, strict=True):
            torch.testing.assert_close(relation(X.float()), expected)
