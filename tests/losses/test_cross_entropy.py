"""Cross-entropy against sums in Python, and the public code's double softmax."""

import math

import pytest
import torch

from osmose.losses import cross_entropy, cross_entropy_of_probabilities

LOGITS = 3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 3, 1, 1, 2, 0])


def softmax(row):
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_value_with_smoothed_labels(smoothing):
    total = 0.0
    for row, label in zip(LOGITS.tolist(), LABELS.tolist(), strict=True):
        for index, p in enumerate(softmax(row)):
            weight = smoothing / 4 + (1 - smoothing) * (index == label)
            total -= weight * math.log(p)
    assert cross_entropy(LOGITS, LABELS, smoothing=smoothing).item() == pytest.approx(total / 6, rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_of_probabilities_is_a_literal_double_softmax(smoothing):
    total = 0.0
    for row, label in zip(LOGITS.tolist(), LABELS.tolist(), strict=True):
        smoothed = [(1 - smoothing) * p + smoothing / 4 for p in softmax(row)]
        total -= math.log(softmax(smoothed)[label])
    value = cross_entropy_of_probabilities(LOGITS, LABELS, smoothing=smoothing)
    assert value.item() == pytest.approx(total / 6, rel=1e-12)


def test_of_probabilities_can_never_fall_below_that_of_a_one_hot():
    """The best that softmax(p) with p in [0, 1] can do is e / (e + C - 1), which is why the published term is nearly flat."""
    certain = 100.0 * torch.eye(4, dtype=torch.float64)
    best = -math.log(math.e / (math.e + 3))
    assert cross_entropy_of_probabilities(certain, torch.arange(4)).item() == pytest.approx(best, rel=1e-12)
    assert cross_entropy(certain, torch.arange(4)).item() < 1e-12


@pytest.mark.parametrize("loss", [cross_entropy, cross_entropy_of_probabilities])
def test_gradient_is_that_of_finite_differences(loss):
    assert torch.autograd.gradcheck(lambda z: loss(z, LABELS, smoothing=0.1), (LOGITS.clone().requires_grad_(),))


@pytest.mark.parametrize("loss", [cross_entropy, cross_entropy_of_probabilities])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_inputs_are_computed_in_float32(loss, dtype):
    narrow = LOGITS.to(dtype)
    value = loss(narrow, LABELS)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(narrow.float(), LABELS))
