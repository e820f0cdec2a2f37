"""Complementary knowledge against counts by hand."""

import math

import pytest
import torch

from osmose.evaluate.complementary import entropy, flips_by_class, relative_similarity, top_classes, transfer_rate


def test_flips_by_class():
    student = torch.tensor([True, False, False, False, True, False])
    teacher = torch.tensor([False, True, True, False, True, True])
    labels = torch.tensor([0, 1, 1, 2, 2, 3])
    assert flips_by_class(student, teacher, labels, 5).tolist() == [0, 2, 0, 1, 0]


def test_entropy():
    assert entropy(torch.tensor([3, 3, 3, 3])) == pytest.approx(math.log(4))
    assert entropy(torch.tensor([0, 7, 0])) == 0
    assert entropy(torch.tensor([1, 3])) == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)))
    assert entropy(torch.tensor([0, 0])) is None


@pytest.mark.parametrize(
    ("share", "expected"),
    [(2, [2]), (50, [2]), (50.1, [2, 0]), (80, [2, 0]), (90, [2, 0, 3]), (91, [2, 0, 3, 4]), (100, [2, 0, 3, 4])],
)
def test_the_shortest_prefix_that_holds_the_share(share, expected):
    """10 flips in classes of 3, 0, 5, 1 and 1."""
    assert top_classes(torch.tensor([3, 0, 5, 1, 1]), share) == expected


def test_no_flips_no_classes():
    assert top_classes(torch.tensor([0, 0]), 50) == []


def test_relative_similarity_is_of_pairs():
    similarities = torch.tensor([[1.0, 0.8, 0.2], [0.8, 1.0, 0.2], [0.2, 0.2, 1.0]])
    assert relative_similarity([0, 1], similarities) == pytest.approx(0.8 / 0.4 - 1)
    assert relative_similarity([0, 1, 2], similarities) == pytest.approx(0, abs=1e-6)
    assert relative_similarity([1], similarities) is None


def test_transfer_rate_is_of_the_teachers_flips_in_the_classes():
    before = torch.tensor([False, False, False, True, False])
    after = torch.tensor([True, False, True, True, True])
    teacher = torch.tensor([True, True, False, True, True])
    labels = torch.tensor([0, 0, 0, 0, 1])
    assert transfer_rate(before, after, teacher, labels, [0]) == 50.0
    assert transfer_rate(before, after, teacher, labels, [0, 1]) == pytest.approx(200 / 3)
    assert transfer_rate(before, after, teacher, labels, [2]) is None
