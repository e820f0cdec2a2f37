"""The distillation of next-token distributions without ever holding a logit for every position and token of the vocabulary.

Positions that count are taken some at a time. Their logits are computed from hidden states and head into buffers that are
reused, and the gradients in the hidden states and the head are formed at once, so that the backward pass has nothing to do.
The peak beyond the gradients is 3 x chunk x vocabulary numbers (4 where labels are learned at another temperature than 1, or
the student's head has a cap).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from osmose.losses.divergences import Divergence, divergence
from osmose.losses.heads import Head, check_widths

IGNORED = -100
"""The label of a position that does not count, as in transformers."""
_NUMBERS = 2**24
"""Logits in a buffer where the number of rows is not given."""


@dataclass(frozen=True)
class Objective:
    """alpha * CE(labels) + (1 - alpha) * T^2 * D, arXiv 2310.02421, eq 1; a mean over the rows that count.

    Attributes:
        alpha: weight of the labels.
        temperature: T.
        divergence: D by name, see `osmose.losses.divergences`.
        beta: of the divergences that have one.
    """

    alpha: float = 0.5
    temperature: float = 1.0
    divergence: str = "forward"
    beta: float = 0.5


def distil_tokens(
    student: Tensor,
    head: Head,
    labels: Tensor,
    *,
    teacher: Tensor | None = None,
    teacher_head: Head | None = None,
    objective: Objective = Objective(),
    count: int | None = None,
    rows: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of a student's hidden states against labels and a teacher's hidden states.

    Where the vocabularies have different sizes, as padding makes them, the tokens that both have are compared.

    Args:
        student: hidden states [n, width] whose next tokens are `labels`; gradients flow into them and into the head.
        head: the student's.
        labels: int64 [n], -100 where a position does not count.
        teacher: its hidden states [n, width of its own], without gradients; None: labels alone count (alpha is then 1).
        teacher_head: the teacher's.
        objective: what is minimised.
        count: what the sums are divided by; by default the number of rows that count, at least 1.
        rows: positions in a chunk; by default as many as 2^24 logits allow, at most 256.

    Returns:
        The loss, with gradients; its cross-entropy and its divergence (before T^2), detached. Scalars; zero when no row counts.

    Raises:
        UserError: where hidden states and head do not fit.
    """
    check_widths(student, head, "student")
    if teacher is not None:
        assert teacher_head is not None
        check_widths(teacher, teacher_head, "teacher")
    loss, entropy, distance = _Fused.apply(
        student, head.weight, head.bias, head, labels, teacher, teacher_head, objective, count, rows
    )
    return loss, entropy, distance


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, student: Tensor, weight: Tensor, bias: Tensor | None, head: Head, labels: Tensor, teacher: Tensor | None,
        teacher_head: Head | None, objective: Objective, count: int | None, rows: int | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        given = (student, weight, bias)
        run = _Run(student, head, labels, teacher, teacher_head, objective, count)
        wide = torch.promote_types(student.dtype, torch.float32)
        run.gradients = [
            torch.zeros_like(one, dtype=wide) if one is not None and want else None
            for one, want in zip(given, ctx.needs_input_grad, strict=False)
        ]
        entropy, distance = (run.sums(rows, wide) / run.count).to(wide)
        ctx.gradients = [
            None if gradient is None or one is None else gradient.to(one.dtype)
            for gradient, one in zip(run.gradients, given, strict=True)
        ]
        ctx.mark_non_differentiable(entropy, distance)
        return run.alpha * entropy + (1 - run.alpha) * objective.temperature**2 * distance, entropy, distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the gradients of distil_tokens were handed out: it has one backward pass")
        given, ctx.gradients = ctx.gradients, None
        return (*(None if one is None else one.mul_(gradient) for one in given), *([None] * 7))


class _Run:
    """One pass over the rows that count."""

    def __init__(
        self, student: Tensor, head: Head, labels: Tensor, teacher: Tensor | None, teacher_head: Head | None,
        objective: Objective, count: int | None,
    ) -> None:  # fmt: skip
        self.student, self.head, self.labels, self.teacher, self.teacher_head = (
            student,
            head,
            labels,
            teacher,
            teacher_head,
        )
        self.alpha = 1.0 if teacher is None else objective.alpha
        self.temperature = objective.temperature
        self.divergence: Divergence = divergence(objective.divergence, objective.beta)
        self.vocabulary = len(head.weight) if teacher_head is None else min(len(head.weight), len(teacher_head.weight))
        self.counted = (labels != IGNORED).nonzero().squeeze(-1)
        self.count = max(1, len(self.counted)) if count is None else count
        self.softened_apart = teacher is not None and self.temperature != 1 and self.alpha > 0
        self.gradients: list[Tensor | None] = []

    def sums(self, rows: int | None, dtype: torch.dtype) -> Tensor:
        """Of the cross-entropies and of the divergences, float64 [2]; the gradients are added up on the way."""
        sums = torch.zeros(2, dtype=torch.float64, device=self.labels.device)
        size = min(len(self.counted), rows or max(1, min(256, _NUMBERS // self.vocabulary)))
        if size == 0:
            return sums
        kept = self.softened_apart or (self.teacher is not None and self.head.cap is not None)
        buffers = torch.empty(
            (2 + (self.teacher is not None) + kept, size, self.vocabulary), dtype=dtype, device=self.labels.device
        )
        for chosen in self.counted.split(size):
            a, b, *more = buffers[:, : len(chosen)]
            hidden, labels = self.student.detach()[chosen], self.labels[chosen]
            logits = self.head.logits(hidden, self.vocabulary, a)
            if self.teacher is None:
                gradient, entropy = self._learn_labels(logits, labels, b)
                sums[0] += entropy
            else:
                logits = more[1].copy_(logits) if kept else logits
                gradient, both = self._learn(chosen, a, labels, b, more[0], logits)
                sums += both
            self._accumulate(chosen, hidden, self.head.back(gradient.mul_(1 / self.count), logits))
        return sums

    def _learn_labels(self, logits: Tensor, labels: Tensor, out: Tensor, weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """The gradient of the cross-entropy, in `out`, and its sum."""
        torch.ops.aten._log_softmax.out(logits, -1, False, out=out)
        entropy = -out.gather(-1, labels.unsqueeze(-1)).sum(dtype=torch.float64)
        out.exp_().mul_(weight)
        return _subtract_at(out, labels, weight), entropy

    def _learn(
        self, chosen: Tensor, a: Tensor, labels: Tensor, b: Tensor, c: Tensor, logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The gradient of the whole loss, in a buffer, and both sums; the student's logits are in `a`."""
        assert self.teacher is not None and self.teacher_head is not None  # noqa: PT018
        self.teacher_head.logits(self.teacher[chosen], self.vocabulary, c)
        if self.temperature != 1:
            a.div_(self.temperature)
            c.div_(self.temperature)
        taught = torch.ops.aten._log_softmax.out(c, -1, False, out=b)
        learned = torch.ops.aten._log_softmax.out(a, -1, False, out=c)
        entropy = -learned.gather(-1, labels.unsqueeze(-1)).sum(dtype=torch.float64)
        hard = 0.0 if self.softened_apart else self.alpha
        distance = self.divergence(learned, taught, a, (1 - self.alpha) * self.temperature, hard).sum(
            dtype=torch.float64
        )
        if self.softened_apart:
            gradient, entropy = self._learn_labels(logits, labels, a, self.alpha)
            learned.add_(gradient)
        elif hard:
            _subtract_at(learned, labels, hard)
        return learned, torch.stack([entropy, distance])

    def _accumulate(self, chosen: Tensor, hidden: Tensor, gradient: Tensor) -> None:
        """Add a chunk's share to the gradients; `gradient` is in x W^T + b."""
        of_hidden, of_weight, of_bias = self.gradients
        weight = self.head.weight.detach()[: self.vocabulary]
        narrow = gradient.to(weight.dtype)
        if of_hidden is not None:
            of_hidden[chosen] = (narrow @ weight).to(of_hidden.dtype)
        if of_weight is not None:
            part = of_weight[: self.vocabulary]
            if narrow.dtype == part.dtype:
                part.addmm_(narrow.t(), hidden.to(narrow.dtype))
            else:
                part.add_(narrow.t() @ hidden.to(narrow.dtype))
        if of_bias is not None:
            of_bias[: self.vocabulary] += gradient.sum(0)


def _subtract_at(gradient: Tensor, labels: Tensor, weight: float) -> Tensor:
    rows = torch.arange(len(labels), device=labels.device)
    gradient[rows, labels] -= weight
    return gradient
