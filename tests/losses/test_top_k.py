"""Restriction to the target's k most probable classes."""

import pytest
import torch

from osmose.losses import kl_divergence, top_k_logits

GENERATOR = torch.Generator().manual_seed(0)
STUDENT, TARGET = (2 * torch.randn(5, 6, generator=GENERATOR, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("k", [6, 7, 1000])
def test_all_classes_give_the_full_divergence_and_gradient(k):
    full, restricted = (STUDENT.clone().requires_grad_() for _ in range(2))
    whole = kl_divergence(full, TARGET, temperature=2.0)
    part = kl_divergence(*top_k_logits(restricted, TARGET, k), temperature=2.0)
    whole.backward()
    part.backward()
    torch.testing.assert_close(part, whole)
    torch.testing.assert_close(restricted.grad, full.grad)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_gathers_the_same_classes_of_both(k):
    ours, theirs = top_k_logits(STUDENT, TARGET, k)
    for i in range(5):
        classes = sorted(range(6), key=lambda c: -TARGET[i, c].item())[:k]
        assert theirs[i].tolist() == [TARGET[i, c].item() for c in classes]
        assert ours[i].tolist() == [STUDENT[i, c].item() for c in classes]


def test_the_softmax_is_renormalised_over_them():
    student, target = torch.tensor([[1.0, 5.0, 2.0]]), torch.tensor([[3.0, -9.0, 3.5]])
    restricted = kl_divergence(*top_k_logits(student, target, 2))
    expected = kl_divergence(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 3.5]]))
    torch.testing.assert_close(restricted, expected)


def test_a_single_class_teaches_nothing():
    student = STUDENT.clone().requires_grad_()
    kl_divergence(*top_k_logits(student, TARGET, 1)).backward()
    assert student.grad.abs().max() == 0
