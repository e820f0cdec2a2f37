"""Flip rules against the table of arXiv 2310.17653's public code, sample by sample."""

from itertools import product

import pytest
import torch

from osmose.errors import UserError
from osmose.losses import kl_divergence
from osmose.targets import TARGETS, FlipRule, by_flips, find_target

GENERATOR = torch.Generator().manual_seed(0)
STUDENT, INITIAL, TEACHER = (torch.randn(60, 3, generator=GENERATOR) for _ in range(3))
LABELS = torch.arange(60) % 3
WHO = ("teacher", "initial", "mean", "nobody")


def kind(i):
    right, taught = STUDENT[i].argmax() == LABELS[i], TEACHER[i].argmax() == LABELS[i]
    return "positive" if taught and not right else "negative" if right and not taught else "neutral"


def expected(i, rule):
    """The logits and the source that sample i gets."""
    who = getattr(rule, kind(i))
    if who == "initial":
        return INITIAL[i], 0
    if who == "mean":
        return (TEACHER[i] + STUDENT[i]) / 2, -2
    return TEACHER[i], -1 if who == "nobody" else 1


def check(choice, rule):
    for i in range(60):
        logits, source = expected(i, rule)
        assert int(choice.source[i]) == source
        if source != -1:
            torch.testing.assert_close(choice.logits[i], logits, rtol=0, atol=0)


def test_every_kind_occurs():
    assert {kind(i) for i in range(60)} == {"positive", "negative", "neutral"}


@pytest.mark.parametrize(("positive", "negative", "neutral"), list(product(WHO, WHO, WHO)))
def test_every_rule(positive, negative, neutral):
    rule = FlipRule(positive=positive, negative=negative, neutral=neutral)
    choice = by_flips(rule, STUDENT, INITIAL, TEACHER, LABELS)
    check(choice, rule)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("flip-st", FlipRule(positive="teacher", negative="initial", neutral="initial")),
        ("flip-t", FlipRule(positive="teacher", negative="initial", neutral="teacher")),
        ("flip-avg", FlipRule(positive="teacher", negative="initial", neutral="mean")),
        ("teacher", FlipRule()),
        ("initial", FlipRule(positive="initial", negative="initial", neutral="initial")),
    ],
)
def test_named_targets(name, rule):
    target = find_target(name)
    check(target.choose(STUDENT, INITIAL, [TEACHER], LABELS), rule)
    assert target.initial == ("initial" in vars(rule).values())
    assert target.mean == ("mean" in vars(rule).values())
    assert not target.nobody
    assert find_target(FlipRule(neutral="nobody")).nobody


def test_what_named_targets_ask_for():
    assert {name for name, target in TARGETS.items() if not target.labels} == {
        "teacher", "initial", "partition-unsupervised",
    }  # fmt: skip
    assert {name for name, target in TARGETS.items() if target.several} == {"partition", "partition-unsupervised"}
    assert {name for name, target in TARGETS.items() if not target.teacher} == {"initial"}


@pytest.mark.parametrize("rule", [FlipRule(positive="nobody"), FlipRule(negative="nobody"), FlipRule(neutral="nobody")])
def test_on_flip_nothing_takes_the_mean_over_the_rest(rule):
    choice = find_target(rule).choose(STUDENT, None, [TEACHER], LABELS)
    kept = [i for i in range(60) if getattr(rule, kind(i)) != "nobody"]
    assert 0 < len(kept) < 60
    loss = kl_divergence(STUDENT, choice.logits, keep=choice.source != -1)
    torch.testing.assert_close(loss, kl_divergence(STUDENT[kept], TEACHER[kept]))


def test_on_flip_nothing_for_all_is_a_loss_of_zero():
    rule = FlipRule(positive="nobody", negative="nobody", neutral="nobody")
    student = STUDENT.clone().requires_grad_()
    choice = by_flips(rule, student, None, TEACHER, LABELS)
    loss = kl_divergence(student, choice.logits, keep=choice.source != -1)
    loss.backward()
    assert loss.item() == 0
    assert student.grad.abs().max() == 0


def test_no_gradient_flows_into_a_target():
    student = STUDENT.clone().requires_grad_()
    choice = by_flips(FlipRule(neutral="mean"), student, INITIAL, TEACHER, LABELS)
    assert not choice.logits.requires_grad


def test_an_unknown_target_names_the_nearest():
    with pytest.raises(UserError, match=r"^unknown target 'partitoin': did you mean 'partition'\?$"):
        find_target("partitoin")
