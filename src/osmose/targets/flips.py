"""Targets that depend on who is right: the current student or the teacher (arXiv 2310.17653, public code)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from osmose.targets.choice import FIRST_TEACHER, INITIAL, MEAN, NOBODY, Choice

Source = Literal["teacher", "initial", "mean", "nobody"]


@dataclass(frozen=True, kw_only=True)
class FlipRule:
    """Who teaches a sample, by who is right about it.

    "mean" is the mean of the teacher's and the current student's logits; "nobody" leaves the sample out of the loss.

    Args:
        positive: the student is wrong and the teacher right.
        negative: the student is right and the teacher wrong.
        neutral: both are right or both are wrong.
    """

    positive: Source = "teacher"
    negative: Source = "teacher"
    neutral: Source = "teacher"


def by_flips(rule: FlipRule, student: Tensor, initial: Tensor | None, teacher: Tensor, labels: Tensor) -> Choice:
    """Choose each sample's logits by `rule`.

    Args:
        rule: who teaches which flips.
        student: logits [n, c] of the current student in training mode; only read.
        initial: logits [n, c] of the initial student; None when the rule never names it.
        teacher: logits [n, c].
        labels: int64 [n] true classes.
    """
    student = student.detach().float()
    student_right, teacher_right = (logits.argmax(-1) == labels for logits in (student, teacher))
    logits, source = teacher, torch.full_like(labels, FIRST_TEACHER)
    for flips, who in (
        (teacher_right & ~student_right, rule.positive),
        (student_right & ~teacher_right, rule.negative),
        (student_right == teacher_right, rule.neutral),
    ):
        if who == "initial":
            assert initial is not None, "the rule names the initial student"
            logits = torch.where(flips.unsqueeze(-1), initial, logits)
            source = source.masked_fill(flips, INITIAL)
        elif who == "mean":
            logits = torch.where(flips.unsqueeze(-1), (teacher + student) / 2, logits)
            source = source.masked_fill(flips, MEAN)
        elif who == "nobody":
            source = source.masked_fill(flips, NOBODY)
    return Choice(logits, source)
