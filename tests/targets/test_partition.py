"""Data partitioning against a slow per-sample reading of arXiv 2310.17653, eqs 4 and 5."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from osmose.losses import kl_divergence
from osmose.targets import partition


def logits(rows, classes, seed):
    return 2 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(row, temperature=1.0):
    powers = [math.exp((value - max(row)) / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def slow_source(networks, label):
    """Who knows one sample best: `networks` are rows of logits, the initial student's first; ties go to the earlier."""
    knows = [softmax(row)[label] if label is not None else max(softmax(row)) for row in networks]
    best = 0
    for number, probability in enumerate(knows):
        if probability > knows[best]:
            best = number
    return best


def slow_loss(student, initial, teacher, labels, temperature):
    """Eq 5 as printed: two masks and two divergences."""
    total = 0.0
    for s, st_, t, y in zip(student, initial, teacher, labels, strict=True):
        m_t = 1 if softmax(t)[y] > softmax(st_)[y] else 0
        m_st = 1 - m_t
        for mask, who in ((m_t, t), (m_st, st_)):
            p, q = softmax(who, temperature), softmax(s, temperature)
            total += mask * sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
    return temperature**2 / len(student) * total


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_loss_is_equation_5(temperature):
    student, initial, teacher = (logits(20, 5, seed) for seed in range(3))
    labels = torch.arange(20) % 5
    choice = partition(initial, teacher, labels)
    assert 0 < choice.source.sum() < 20  # both teach someone
    expected = slow_loss(student.tolist(), initial.tolist(), teacher.tolist(), labels.tolist(), temperature)
    assert kl_divergence(student, choice.logits, temperature=temperature).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("teachers", [1, 2, 4])
@pytest.mark.parametrize("supervised", [True, False])
def test_sources_are_those_of_the_slow_reading_and_agree_with_the_logits(teachers, supervised):
    networks = [logits(50, 4, seed) for seed in range(teachers + 1)]
    labels = torch.arange(50) % 4 if supervised else None
    choice = partition(networks[0], networks[1:], labels)
    assert choice.source.dtype == torch.int64
    for i in range(50):
        label = None if labels is None else int(labels[i])
        assert int(choice.source[i]) == slow_source([network[i].tolist() for network in networks], label)
        assert torch.equal(choice.logits[i], networks[choice.source[i]][i])
    assert set(choice.source.tolist()) == set(range(teachers + 1))


row = st.lists(st.integers(-3, 3), min_size=3, max_size=3)


@settings(deadline=None)
@given(st.lists(st.tuples(row, row, row, st.integers(0, 2)), min_size=1, max_size=6))
def test_any_logits_with_ties(samples):
    networks = [torch.tensor([sample[n] for sample in samples], dtype=torch.float64) for n in range(3)]
    labels = torch.tensor([sample[3] for sample in samples])
    for given_labels in (labels, None):
        choice = partition(networks[0], networks[1:], given_labels)
        for i, sample in enumerate(samples):
            label = None if given_labels is None else sample[3]
            knows = [softmax(r)[label] if label is not None else max(softmax(r)) for r in sample[:3]]
            chosen = int(choice.source[i])
            # rounding may part two networks that agree exactly, but nobody may be passed over who knows more
            assert knows[chosen] >= max(knows) - 1e-6
            assert all(sample[n] != sample[chosen] for n in range(chosen)), "an identical earlier network wins the tie"


def test_ties_go_to_the_initial_student_and_then_to_the_earlier_teacher():
    same = logits(6, 3, 0)
    labels = torch.arange(6) % 3
    for given_labels in (labels, None):
        assert partition(same, same.clone(), given_labels).source.tolist() == [0] * 6
        assert partition(same, [same.clone(), same.clone()], given_labels).source.tolist() == [0] * 6
        better = 5.0 * torch.nn.functional.one_hot(labels, 3).double()
        assert partition(torch.zeros(6, 3), [better.float(), better.float()], given_labels).source.tolist() == [1] * 6


def test_unsupervised_is_supervised_by_the_more_confident_networks_answer():
    initial, teacher = logits(200, 5, 3), logits(200, 5, 4)
    confident = initial.softmax(-1).amax(-1) >= teacher.softmax(-1).amax(-1)
    labels = torch.where(confident, initial.argmax(-1), teacher.argmax(-1))
    free, labelled = partition(initial, teacher), partition(initial, teacher, labels)
    assert torch.equal(free.source, labelled.source)
    assert torch.equal(free.logits, labelled.logits)


def test_the_temperature_of_the_masks_is_1():
    """At a high temperature the teacher would win: its margin over each other class is larger in only one of them."""
    initial, teacher = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[2.0, 1.9, -9.0]])
    label = torch.tensor([0])
    assert (teacher / 50).softmax(-1)[0, 0] > (initial / 50).softmax(-1)[0, 0]
    assert partition(initial, teacher, label).source.tolist() == [0]


def test_the_masks_sum_to_one_over_everyone():
    networks = [logits(40, 4, seed) for seed in range(4)]
    source = partition(networks[0], networks[1:], torch.arange(40) % 4).source
    assert sum((source == who).float().mean().item() for who in range(4)) == pytest.approx(1)


def test_narrow_logits_are_compared_in_float32():
    """In bfloat16 both probabilities would round to the same number."""
    initial, teacher = torch.tensor([[8.0, 0.0]]), torch.tensor([[8.0625, 0.0]])
    choice = partition(initial.bfloat16(), teacher.bfloat16(), torch.tensor([0]))
    assert choice.source.tolist() == [1]
