"""Targets by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from osmose.errors import unknown
from osmose.targets.choice import FIRST_TEACHER, INITIAL, Choice
from osmose.targets.flips import FlipRule, by_flips
from osmose.targets.partition import partition


@dataclass(frozen=True)
class Target:
    """A target that a method can ask for each batch.

    Attributes:
        summary: one line for people.
        choose: who teaches each sample, from the logits of the current student, of the initial student and of the teachers,
            and the labels; what the target does not need may be anything.
        initial: whether it needs the initial student's logits.
        labels: whether it needs labels.
        mean: whether it may teach with a mean of several networks.
        nobody: whether it may leave samples to nobody.
        several: whether more than one teacher is accepted.
        teacher: whether a teacher is needed.
        numbers: whether it takes networks that give one number and no classes.
    """

    summary: str
    choose: Callable[[Tensor, Any, Sequence[Tensor], Any], Choice]
    initial: bool = False
    labels: bool = False
    mean: bool = False
    nobody: bool = False
    several: bool = False
    teacher: bool = True
    numbers: bool = False


def _all_from(source: int, logits: Tensor) -> Choice:
    return Choice(logits, torch.full(logits.shape[:1], source, device=logits.device))


def from_rule(rule: FlipRule, summary: str = "by who is right") -> Target:
    """The target that follows a flip rule."""
    return Target(
        summary,
        lambda student, initial, teachers, labels: by_flips(rule, student, initial, teachers[0], labels),
        initial="initial" in (rule.positive, rule.negative, rule.neutral),
        labels=True,
        mean="mean" in (rule.positive, rule.negative, rule.neutral),
        nobody="nobody" in (rule.positive, rule.negative, rule.neutral),
    )


TARGETS: dict[str, Target] = {
    "teacher": Target("every sample by the teacher", lambda s, i, t, y: _all_from(FIRST_TEACHER, t[0]), numbers=True),
    "initial": Target(
        "every sample by the initial student (self-distillation)",
        lambda s, i, t, y: _all_from(INITIAL, i),
        initial=True,
        teacher=False,
        numbers=True,
    ),
    "partition": Target(
        "by the network with the highest probability of the true class, or the nearest number",
        lambda s, i, t, y: partition(i, t, y),
        initial=True,
        labels=True,
        several=True,
        numbers=True,
    ),
    "partition-unsupervised": Target(
        "by the most confident network; needs no labels",
        lambda s, i, t, y: partition(i, t),
        initial=True,
        several=True,
    ),
    "flip-st": from_rule(
        FlipRule(negative="initial", neutral="initial"),
        "positive flips by the teacher, all else by the initial student",
    ),
    "flip-t": from_rule(FlipRule(negative="initial"), "negative flips by the initial student, all else by the teacher"),
    "flip-avg": from_rule(
        FlipRule(negative="initial", neutral="mean"),
        "positive flips by the teacher, negative by the initial student, the rest by teacher and current student",
    ),
}


def find_target(target: str | FlipRule) -> Target:
    """The target of that name, or the one that follows the rule.

    Raises:
        UserError: when no target has that name.
    """
    if isinstance(target, FlipRule):
        return from_rule(target)
    if target not in TARGETS:
        raise unknown("target", target, TARGETS)
    return TARGETS[target]
