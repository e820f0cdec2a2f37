"""Divergences between next-token distributions, with their gradients, in buffers that are used up.

Each is called with log-probabilities [n, v] of student and teacher and a third buffer of that shape; it gives the divergence of
each row, and leaves in the student's buffer `weight` times its gradient in the student's logits plus `hard` times the student's
probabilities, which is what a cross-entropy adds to every logit. The other two buffers hold nothing of use afterwards.
With s and t the two distributions and w = dL/ds up to a constant, the gradient in the logits is s * (w - sum(s * w)).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from osmose.errors import check, unknown

Divergence = Callable[[Tensor, Tensor, Tensor, float, float], Tensor]
"""(student, teacher, spare, weight, hard) -> values [n]."""

DIVERGENCES = ("forward", "reverse", "jensen-shannon", "skewed")


def divergence(name: str, beta: float = 0.5) -> Divergence:
    """A divergence by name.

    Args:
        name: "forward", KL(t || s); "reverse", KL(s || t); "jensen-shannon", beta KL(t || m) + (1 - beta) KL(s || m), over
            beta (1 - beta), with m = beta t + (1 - beta) s, which tends to "forward" as beta goes to 0 and to "reverse" as it
            goes to 1 (arXiv 2306.13649 has no denominator); "skewed", KL(t || beta t + (1 - beta) s) (arXiv 2402.03898).
        beta: of the last two, between 0 and 1.

    Raises:
        UserError: for an unknown name, or a beta outside.
    """
    if name not in DIVERGENCES:
        raise unknown("divergence", name, DIVERGENCES)
    check(0 <= beta <= 1, "beta", beta, "between 0 and 1")
    if name == "skewed":
        check(beta < 1, "beta", beta, "below 1, where the skewed divergence is nothing")
        return forward if beta == 0 else lambda *given: skewed(*given, beta=beta)
    if name == "jensen-shannon" and 0 < beta < 1:
        return lambda *given: jensen_shannon(*given, beta=beta)
    return forward if name == "forward" or (name == "jensen-shannon" and beta == 0) else reverse


def forward(student: Tensor, teacher: Tensor, spare: Tensor, weight: float, hard: float) -> Tensor:
    """KL(t || s) = sum t (log t - log s); its gradient is s - t."""
    taught = torch.exp(teacher, out=spare)
    difference = teacher.sub_(student)
    values = torch.mul(taught, difference, out=difference).sum(-1)
    student.exp_()
    if weight + hard != 1:
        student.mul_(weight + hard)
    student.sub_(taught, alpha=weight)
    return values


def reverse(student: Tensor, teacher: Tensor, spare: Tensor, weight: float, hard: float) -> Tensor:
    """KL(s || t); w = log s - log t."""
    difference = torch.sub(student, teacher, out=teacher)
    values = _dot(student.exp_(), difference)
    _combine(student, difference, values, weight, hard)
    return values


def jensen_shannon(
    student: Tensor, teacher: Tensor, spare: Tensor, weight: float, hard: float, *, beta: float
) -> Tensor:
    """The generalised Jensen-Shannon divergence over beta (1 - beta); w = (log s - log m) / beta."""
    taught = torch.exp(teacher, out=spare)
    entropy = _dot(taught, teacher)
    mixture = torch.logaddexp(teacher.add_(math.log(beta / (1 - beta))), student, out=teacher)  # log m - log(1 - beta)
    from_teacher = entropy - _dot(taught, mixture) - math.log1p(-beta)
    difference = torch.sub(student, mixture, out=mixture)  # log s - log m + log(1 - beta)
    expected = _dot(student.exp_(), difference)
    _combine(student, difference, expected, weight / beta, hard)
    return from_teacher / (1 - beta) + (expected - math.log1p(-beta)) / beta


def skewed(student: Tensor, teacher: Tensor, spare: Tensor, weight: float, hard: float, *, beta: float) -> Tensor:
    """KL(t || m) with m = beta t + (1 - beta) s; w = -(1 - beta) t / m."""
    taught = torch.exp(teacher, out=spare)
    entropy = _dot(taught, teacher)
    mixture = torch.logaddexp(teacher.add_(math.log(beta / (1 - beta))), student, out=teacher)  # log m - log(1 - beta)
    values = entropy - _dot(taught, mixture) - math.log1p(-beta)
    share = taught.div_(mixture.exp_().clamp_(min=torch.finfo(mixture.dtype).tiny))  # (1 - beta) t / m
    _combine(student.exp_(), share, _dot(student, share), -weight, hard)
    return values


def _combine(probabilities: Tensor, w: Tensor, expected: Tensor, weight: float, hard: float) -> None:
    """probabilities <- probabilities * (weight * (w - expected) + hard); w is used up."""
    probabilities.mul_(w.sub_(expected.unsqueeze(-1)).mul_(weight).add_(hard))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Of each row, sum(a * b), without a further buffer."""
    return torch.bmm(a.unsqueeze(1), b.unsqueeze(2)).flatten()
