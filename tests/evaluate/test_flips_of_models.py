"""Accuracy, flips and the transfer's numbers, counted by hand and by their identities."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from osmose.evaluate import accuracy, negative_flips, positive_flips
from osmose.evaluate.transfer import transfer_numbers

pairs = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=60)


def columns(rows):
    return [torch.tensor(column) for column in zip(*rows, strict=True)]


def counted(percent, n):
    """The whole number of samples that a percentage stands for."""
    number = percent * n / 100
    assert number == pytest.approx(round(number), abs=1e-9)
    return round(number)


def test_counted_by_hand():
    student, teacher = torch.tensor([1, 1, 0, 0, 0]).bool(), torch.tensor([1, 0, 1, 1, 0]).bool()
    assert accuracy(student) == 40.0
    assert positive_flips(student, teacher) == 40.0
    assert negative_flips(student, teacher) == 20.0


@given(pairs)
def test_positive_flips_one_way_are_negative_the_other(rows):
    a, b, _ = columns(rows)
    assert positive_flips(a, b) == negative_flips(b, a)
    assert negative_flips(a, b) == positive_flips(b, a)


@given(pairs)
def test_gain_less_loss_is_the_transfer_delta(rows):
    before, after, teacher = columns(rows)
    n = len(before)
    numbers = transfer_numbers(before, after, [teacher])
    delta = sum(a - b for b, a, _ in rows)
    gain = sum(a and not b for b, a, _ in rows)
    assert counted(numbers["transfer_delta"], n) == delta
    assert counted(numbers["knowledge_gain"], n) == gain
    assert counted(numbers["knowledge_loss"], n) == gain - delta
    assert counted(numbers["accuracy_after"], n) - counted(numbers["accuracy_before"], n) == delta


@given(pairs)
def test_flips_against_the_teacher_are_the_gap_in_accuracy(rows):
    before, after, teacher = columns(rows)
    n = len(before)
    numbers = transfer_numbers(before, after, [teacher])
    for when in ("before", "after"):
        gap = counted(numbers["teacher_accuracy"], n) - counted(numbers[f"accuracy_{when}"], n)
        flips = [counted(numbers[f"{sign}_flips_{when}"], n) for sign in ("positive", "negative")]
        assert flips[0] - flips[1] == gap
    assert numbers["samples"] == n


def test_several_teachers_give_several_accuracies_and_flips_against_the_first():
    before, after, one, two = torch.tensor([[0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]]).bool()
    numbers = transfer_numbers(before, after, [one, two])
    assert numbers["teacher_accuracy"] == [50.0, 25.0]
    assert numbers["positive_flips_before"] == 50.0
    assert numbers["positive_flips_after"] == 25.0


def test_without_teachers_there_are_no_flips_against_one():
    numbers = transfer_numbers(torch.tensor([True]), torch.tensor([False]), [])
    assert "teacher_accuracy" not in numbers
    assert not any("flips" in key for key in numbers)
