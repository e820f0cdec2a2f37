"""The squared error against plain arithmetic."""

import pytest
import torch

from osmose.losses import squared_error

STUDENT = [0.5, -1.0, 2.0, 3.0]
TARGET = [1.0, -1.0, 0.0, 2.5]


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_is_the_mean_of_squares(shape):
    expected = sum((a - b) ** 2 for a, b in zip(STUDENT, TARGET, strict=True)) / 4
    student = torch.tensor(STUDENT)[:, None]
    assert squared_error(student, torch.tensor(TARGET).view(shape)).item() == pytest.approx(expected)


def test_is_over_the_samples_kept():
    student, target = torch.tensor(STUDENT)[:, None].requires_grad_(), torch.tensor(TARGET)[:, None]
    keep = torch.tensor([True, False, True, False])
    loss = squared_error(student, target, keep=keep)
    assert loss.item() == pytest.approx((0.25 + 4.0) / 2)
    loss.backward()
    assert student.grad.flatten().tolist() == [-0.5, 0.0, 2.0, 0.0]
    nobody = squared_error(student, target, keep=torch.zeros(4, dtype=torch.bool))
    assert nobody.item() == 0.0


def test_narrow_numbers_are_widened():
    student = torch.tensor([[1e4], [0.0]], dtype=torch.float16)
    assert squared_error(student, torch.zeros(2)).item() == pytest.approx(5e7)
