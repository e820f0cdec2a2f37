"""The divergences against closed forms and slow sums in Python."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from osmose.losses import kl_divergence, soft_cross_entropy

LOSSES = (kl_divergence, soft_cross_entropy)


def logits(rows, classes, seed, scale=3.0):
    return scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_softmax(row, temperature):
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def slow_kl(student, target, temperature, kept=None):
    total, rows = 0.0, range(len(student)) if kept is None else kept
    for i in rows:
        p_s, p_t = slow_softmax(student[i].tolist(), temperature), slow_softmax(target[i].tolist(), temperature)
        total += sum(t * (math.log(t) - math.log(s)) for s, t in zip(p_s, p_t, strict=True))
    return temperature**2 * total / len(rows)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_value_is_the_papers_sum(temperature):
    student, target = logits(5, 4, 0), logits(5, 4, 1)
    expected = slow_kl(student, target, temperature)
    assert kl_divergence(student, target, temperature=temperature).item() == pytest.approx(expected, rel=1e-12)


def test_the_target_is_the_first_argument_of_the_divergence():
    student, target = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[0.0, 0.0]])
    forward = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)  # KL((1/2, 1/2) || (1/4, 3/4))
    backward = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert abs(forward - backward) > 0.01
    assert kl_divergence(student, target).item() == pytest.approx(forward, rel=1e-6)
    assert kl_divergence(target, student).item() == pytest.approx(backward, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0, 10.0])
def test_gradient_is_t_over_b_times_the_difference_of_probabilities(loss, temperature):
    student, target = logits(6, 5, 2).requires_grad_(), logits(6, 5, 3)
    loss(student, target, temperature=temperature).backward()
    difference = (student.detach() / temperature).softmax(-1) - (target / temperature).softmax(-1)
    torch.testing.assert_close(student.grad, temperature / 6 * difference, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_that_of_finite_differences(loss):
    student, target, keep = logits(3, 4, 4).requires_grad_(), logits(3, 4, 5), torch.tensor([True, False, True])
    assert torch.autograd.gradcheck(lambda z: loss(z, target, temperature=2.0), (student,))
    assert torch.autograd.gradcheck(lambda z: loss(z, target, temperature=0.7, keep=keep), (student,))


def test_t_squared_keeps_the_gradient_of_a_hot_softmax():
    """T^2 undoes the softmax's 1/T^2: for large T the gradient tends to the centred logits' difference over B C."""
    student, target = logits(3, 4, 6).requires_grad_(), logits(3, 4, 7)
    kl_divergence(student, target, temperature=1e6).backward()
    difference = student.detach() - target
    centred = difference - difference.mean(-1, keepdim=True)
    torch.testing.assert_close(student.grad, centred / (3 * 4), rtol=1e-3, atol=1e-6)


def test_zero_when_equal_or_shifted_by_a_constant():
    student = logits(4, 3, 8).requires_grad_()
    loss = kl_divergence(student, student.detach() + 7.0, temperature=2.0)
    loss.backward()
    assert abs(loss.item()) < 1e-14
    assert student.grad.abs().max() < 1e-14


rows = st.lists(st.floats(-30, 30), min_size=3, max_size=3)


@given(rows, rows, st.floats(0.1, 10))
def test_never_negative(student, target, temperature):
    student, target = (torch.tensor([row], dtype=torch.float64) for row in (student, target))
    assert kl_divergence(student, target, temperature=temperature).item() >= -1e-10


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_cross_entropy_is_kl_plus_the_targets_entropy(temperature):
    student, target = logits(5, 4, 9).requires_grad_(), logits(5, 4, 10)
    p = (target / temperature).softmax(-1)
    entropy = -(p * p.log()).sum(-1).mean()
    hard = soft_cross_entropy(student, target, temperature=temperature)
    soft = kl_divergence(student, target, temperature=temperature)
    torch.testing.assert_close(hard, soft + temperature**2 * entropy)
    grads = [torch.autograd.grad(loss, student)[0] for loss in (hard, soft)]
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("loss", LOSSES)
def test_keep_is_the_mean_over_the_kept_samples(loss):
    student, target = logits(6, 4, 11), logits(6, 4, 12)
    keep = torch.tensor([True, False, True, True, False, False])
    masked, subset = student.clone().requires_grad_(), student[keep].clone().requires_grad_()
    loss(masked, target, temperature=2.0, keep=keep).backward()
    loss(subset, target[keep], temperature=2.0).backward()
    torch.testing.assert_close(loss(student, target, keep=keep), loss(student[keep], target[keep]))
    torch.testing.assert_close(masked.grad[keep], subset.grad)
    assert masked.grad[~keep].abs().max() == 0


def test_keep_agrees_with_the_slow_sum():
    student, target = logits(6, 4, 11), logits(6, 4, 12)
    keep = torch.tensor([False, True, True, False, True, True])
    expected = slow_kl(student, target, 2.0, kept=[1, 2, 4, 5])
    assert kl_divergence(student, target, temperature=2.0, keep=keep).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_none_kept_is_zero_with_a_finite_gradient(loss):
    student = logits(3, 4, 13).requires_grad_()
    nothing = loss(student, logits(3, 4, 14), keep=torch.zeros(3, dtype=torch.bool))
    nothing.backward()
    assert nothing.item() == 0
    assert torch.equal(student.grad, torch.zeros(3, 4, dtype=torch.float64))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_inputs_are_computed_in_float32(loss, dtype):
    student, target = logits(8, 10, 15).to(dtype).requires_grad_(), logits(8, 10, 16).to(dtype)
    wide = loss(student.detach().float(), target.float(), temperature=2.0)
    narrow = loss(student, target, temperature=2.0)
    assert narrow.dtype == torch.float32
    assert torch.equal(narrow, wide)
    narrow.backward()
    assert student.grad.dtype == dtype


def test_float64_stays_float64():
    assert kl_divergence(logits(2, 3, 0), logits(2, 3, 1)).dtype == torch.float64


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [1e4, 1e30])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_extreme_logits_stay_finite(loss, size, temperature):
    student = torch.tensor([[size, -size, 0.0], [0.0, 0.0, size]]).requires_grad_()
    target = torch.tensor([[-size, size, 0.0], [0.0, 0.0, size]])
    value = loss(student, target, temperature=temperature)
    value.backward()
    assert math.isfinite(value.item())
    assert student.grad.isfinite().all()
