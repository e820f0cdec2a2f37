"""The distillation of next-token distributions without ever holding a logit for every position and token of the vocabulary.

Positions that count are taken some at a time. Their logits are computed from hidden states and head into buffers that are
reused, and the gradients in the hidden states and the head are formed at once, so that the backward pass has nothing to do.
The peak beyond the gradients is 3 x chunk x vocabulary numbers (4 where labels are learned apart from the teacher, at another
temperature than 1 or over more tokens, or the student's head has a cap), and under autocast 512 x vocabulary and vocabulary x
width narrow ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from osmose.errors import UserError
from osmose.losses.divergences import Divergence, divergence
from osmose.losses.heads import Head, check_widths

IGNORED = -100
"""The label of a position that does not count, as in transformers."""
_NUMBERS, _FEWEST, _MOST = 2**23, 64, 128
"""Logits in a buffer, and rows at least and at most, where their number is not given: fewer rows make matrix products slower."""
_NOTHING = -1e4
"""The logarithm of a probability that is nothing, where an infinite one times zero would be no number."""
_HELD = 512
"""Rows whose narrow gradients are multiplied with their hidden states at a time: adding the product to a head's gradient takes
about as long as making it of so many."""


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


@dataclass(frozen=True)
class States:
    """A teacher that is there: its hidden states [n, width of its own], without gradients, and its head.

    Under autocast its logits are computed in autocast's type only where it may be `narrow`.
    """

    hidden: Tensor
    head: Head
    narrow: bool = False

    def to(self, dtype: torch.dtype) -> "States":
        """The same in another type."""
        return States(self.hidden.to(dtype), self.head.to(dtype), self.narrow)


@dataclass(frozen=True)
class TopTokens:
    """A teacher's k most probable tokens at the objective's temperature; all others count as one, in student and teacher.

    Attributes:
        ids: int64 [n, k], different ones in a row.
        log_probabilities: [n, k].
        rest: [n], the logarithm of the probability of all others.
    """

    ids: Tensor
    log_probabilities: Tensor
    rest: Tensor

    def of(self, chosen: Tensor) -> "TopTokens":
        """Of some positions."""
        return TopTokens(self.ids[chosen], self.log_probabilities[chosen], self.rest[chosen])


@dataclass(frozen=True)
class SampledTokens:
    """Tokens drawn from a teacher's distribution at the objective's temperature (arXiv 2503.16870).

    With them the forward divergence is estimated without bias, in value and gradient: the expectation over draws is that of the
    whole distribution. Others are not.

    Attributes:
        ids: int64 [n, k], different ones in a row but for those of no weight.
        weights: [n, k], how often each was drawn, over the number of draws.
        entropy: [n], of the whole distribution, in nats.
    """

    ids: Tensor
    weights: Tensor
    entropy: Tensor


Teacher = States | TopTokens | SampledTokens


def distil_tokens(
    student: Tensor,
    head: Head,
    labels: Tensor,
    *,
    teacher: Teacher | Sequence[Teacher] | None = None,
    source: Tensor | None = None,
    vocabulary: int | None = None,
    objective: Objective = Objective(),
    count: float | None = None,
    rows: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of a student's hidden states against labels and teachers.

    Where the vocabularies have different sizes, as padding makes them, student and teacher are compared over the tokens that
    both have; labels are learned over all of the student's. Under autocast the student's matrix products are computed in its
    type, and all else in float32.

    Args:
        student: hidden states [n, width] whose next tokens are `labels`; gradients flow into them and into the head.
        head: the student's.
        labels: int64 [n], -100 where a position does not count.
        teacher: what it says of the same n positions; several, of which `source` says who teaches which position; None: labels
            alone count (alpha is then 1).
        source: int64 [n], places in the list of teachers; none where there is one.
        vocabulary: how many tokens, from the first on, are compared; by default those that all have who are there.
        objective: what is minimised.
        count: what the sums are divided by; by default the number of rows that count, at least 1.
        rows: positions in a chunk; by default as many as 2^23 logits allow, at least 64 and at most 128.

    Returns:
        The loss, with gradients; its cross-entropy and its divergence (before T^2), detached. Scalars; zero when no row counts.

    Raises:
        UserError: where hidden states and head do not fit, or a divergence cannot be had from samples.
    """
    check_widths(student, head, "student")
    teachers = [] if teacher is None else [teacher] if isinstance(teacher, Teacher) else list(teacher)
    for one in teachers:
        if isinstance(one, States):
            check_widths(one.hidden, one.head, "teacher")
        check_form(type(one), objective.divergence)
    if (source is None) != (len(teachers) < 2):
        raise ValueError("source says who of several teachers teaches a position")
    loss, entropy, distance = _Fused.apply(
        student, head.weight, head.bias, head, labels, teachers, source, vocabulary, objective, count, rows
    )
    return loss, entropy, distance


def check_form(form: type[Teacher], divergence: str) -> None:
    """Raise `UserError` where a divergence cannot be had from a teacher of this form."""
    if form is SampledTokens and divergence != "forward":
        raise UserError(f"divergence {divergence} cannot be had from sampled tokens: take forward, or the top k tokens")


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, student: Tensor, weight: Tensor, bias: Tensor | None, head: Head, labels: Tensor, teachers: list[Teacher],
        source: Tensor | None, vocabulary: int | None, objective: Objective, count: float | None, rows: int | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        given = (student, weight, bias)
        run = _Run(student, head, labels, teachers, source, vocabulary, objective, count)
        wide = torch.promote_types(student.dtype, torch.float32)
        run.gradients = [
            torch.zeros_like(one, dtype=wide) if one is not None and want else None
            for one, want in zip(given, ctx.needs_input_grad, strict=False)
        ]
        with torch.autocast(student.device.type, enabled=False):  # or it would narrow the sums as well
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
        return (*(None if one is None else one.mul_(gradient) for one in given), *([None] * 8))


class _Run:
    """One pass over the rows that count."""

    def __init__(
        self, student: Tensor, head: Head, labels: Tensor, teachers: list[Teacher], source: Tensor | None,
        vocabulary: int | None, objective: Objective, count: float | None,
    ) -> None:  # fmt: skip
        self.student, self.head, self.labels, self.teachers, self.source = student, head, labels, teachers, source
        if torch.is_autocast_enabled(student.device.type):
            narrow = torch.get_autocast_dtype(student.device.type)
            self.student, self.head = student.to(narrow), head.to(narrow)
            self.teachers = [one.to(narrow) if isinstance(one, States) and one.narrow else one for one in teachers]
        self.alpha = objective.alpha if teachers else 1.0
        self.temperature = objective.temperature
        self.divergence: Divergence = divergence(objective.divergence, objective.beta)
        own = len(head.weight)
        theirs = [len(one.head.weight) for one in teachers if isinstance(one, States)]
        self.common = min(own, *theirs, vocabulary or own)
        """Tokens that are compared with a teacher's."""
        self.apart = bool(teachers) and (self.temperature != 1 or self.common < own)
        """Whether what labels are learned from is another distribution than what is compared."""
        self.vocabulary = own if self.alpha > 0 else self.common
        """Tokens whose logits get a gradient."""
        self.counted = (labels != IGNORED).nonzero().squeeze(-1)
        self.count = max(1, len(self.counted)) if count is None else count
        self.gradients: list[Tensor | None] = []
        self.narrow: _NarrowSum | None = None

    def sums(self, rows: int | None, dtype: torch.dtype) -> Tensor:
        """Of the cross-entropies and of the divergences, float64 [2]; the gradients are added up on the way."""
        sums = torch.zeros(2, dtype=torch.float64, device=self.labels.device)
        own = len(self.head.weight)
        size = min(len(self.counted), rows or max(_FEWEST, min(_MOST, _NUMBERS // own)))
        if size == 0:
            return sums
        kept = bool(self.teachers) and (
            (self.apart and self.alpha > 0) or self.common < own or self.head.cap is not None
        )
        dense = any(isinstance(one, States) for one in self.teachers)
        buffers = torch.empty((2 + dense + kept, size, own), dtype=dtype, device=self.labels.device)
        of_weight = self.gradients[1]
        if of_weight is not None and self.head.weight.dtype != dtype:
            held = min(len(self.counted), max(size, _HELD))
            self.narrow = _NarrowSum(of_weight[: self.vocabulary], held, self.head.weight.dtype)
        for chosen, teacher in self._chunks(size):
            a, b, *more = buffers[:, : len(chosen)]
            hidden, labels = self.student.detach()[chosen], self.labels[chosen]
            logits = self.head.logits(hidden, own, a)
            if teacher is None:
                gradient, entropy = self._learn_labels(logits, labels, b)
                sums[0] += entropy
            else:
                logits = more.pop().copy_(logits) if kept else logits
                gradient, both = self._learn(chosen, labels, teacher, (a, b, *more), logits)
                sums += both
            gradient.mul_(1 / self.count)
            self._accumulate(chosen, hidden, self.head.back(gradient, logits[:, : self.vocabulary]))
        if self.narrow is not None:
            self.narrow.flush()
        return sums

    def _chunks(self, size: int) -> Iterator[tuple[Tensor, Teacher | None]]:
        """Rows that count, at most `size` at a time, with whoever teaches them."""
        if self.source is None:
            yield from ((chosen, next(iter(self.teachers), None)) for chosen in self.counted.split(size))
            return
        source = self.source[self.counted]
        for number, teacher in enumerate(self.teachers):
            yield from ((chosen, teacher) for chosen in self.counted[source == number].split(size) if len(chosen))

    def _learn_labels(self, logits: Tensor, labels: Tensor, out: Tensor, weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """The gradient of the cross-entropy, in `out`, and its sum."""
        _log_softmax(logits, out)
        entropy = _entropy(out, labels)
        out.exp_().mul_(weight)
        return _subtract_at(out, labels, weight), entropy

    def _learn(
        self, chosen: Tensor, labels: Tensor, teacher: Teacher, buffers: tuple[Tensor, ...], logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The gradient of the whole loss, in a buffer, and both sums; the student's logits are in the first."""
        whole, entropy = buffers[0], None
        if self.apart and self.alpha == 0:
            entropy = _entropy(_log_softmax(whole, buffers[1]), labels)
        a, b, *more = (buffer.flatten()[: len(chosen) * self.common].view(-1, self.common) for buffer in buffers)
        if self.common < whole.shape[1]:
            a.copy_(logits[:, : self.common])
        if self.temperature != 1:
            a.div_(self.temperature)
        weight, hard = (1 - self.alpha) * self.temperature, 0.0 if self.apart else self.alpha
        if isinstance(teacher, States):
            z = teacher.head.logits(teacher.hidden[chosen], self.common, more[0])
            taught = _log_softmax(z if self.temperature == 1 else z.div_(self.temperature), b)
            learned = _log_softmax(a, more[0])
        else:
            learned = _log_softmax(a, b)
        if not self.apart:
            entropy = _entropy(learned, labels)
        if isinstance(teacher, States):
            values = self.divergence(learned, taught, a, weight, hard)
        elif isinstance(teacher, TopTokens):
            values = self._from_top(learned, teacher.of(chosen), a, weight, hard)
        else:
            ids, weights = teacher.ids[chosen], teacher.weights[chosen].to(learned.dtype)
            values = -(weights * learned.gather(-1, ids)).sum(-1) - teacher.entropy[chosen]
            learned.exp_().mul_(weight + hard).scatter_add_(-1, ids, -weight * weights)
        gradient = learned
        if entropy is None:
            gradient, entropy = self._learn_labels(logits, labels, whole, self.alpha)
            gradient[:, : self.common].add_(learned)
        elif hard:
            _subtract_at(gradient, labels, hard)
        return gradient, torch.stack([entropy, values.sum(dtype=torch.float64)])

    def _from_top(self, learned: Tensor, teacher: TopTokens, spare: Tensor, weight: float, hard: float) -> Tensor:
        """The divergence of the distributions over the top tokens and "any other"; the gradient takes the place of `learned`.

        A token among the others gets its share of their gradient: that in a logit of a sum of probabilities. The sum and the
        shares come from the others' logarithms, as the small difference of a sum from 1 is mostly rounding.
        """
        others = spare.copy_(learned).scatter_(-1, teacher.ids, _NOTHING)
        most = others.amax(-1, keepdim=True)
        total = others.sub_(most).exp_().sum(-1, keepdim=True)
        shares, rest = others.div_(total), most + total.log()
        student = torch.cat([learned.gather(-1, teacher.ids), rest], -1)
        taught = (
            torch.cat([teacher.log_probabilities, teacher.rest.unsqueeze(-1)], -1).to(learned.dtype).clamp(min=_NOTHING)
        )
        values = self.divergence(student, taught, torch.empty_like(student), weight, hard)
        torch.mul(shares, student[:, -1:], out=learned).scatter_(-1, teacher.ids, student[:, :-1])
        return values

    def _accumulate(self, chosen: Tensor, hidden: Tensor, gradient: Tensor) -> None:
        """Add a chunk's share to the gradients; `gradient` is in x W^T + b."""
        of_hidden, of_weight, of_bias = self.gradients
        weight = self.head.weight.detach()[: self.vocabulary]
        hidden = hidden.to(weight.dtype)
        narrow = gradient.to(weight.dtype) if self.narrow is None else self.narrow.add(gradient, hidden)
        if of_hidden is not None:
            of_hidden[chosen] = (narrow @ weight).to(of_hidden.dtype)
        if of_weight is not None and self.narrow is None:
            of_weight[: self.vocabulary].addmm_(narrow.t(), hidden)
        if of_bias is not None:
            of_bias[: self.vocabulary] += gradient.sum(0)


class _NarrowSum:
    """Adds products of narrow gradients and hidden states to a gradient in float32, many rows at a time."""

    def __init__(self, total: Tensor, rows: int, dtype: torch.dtype) -> None:
        vocabulary, width = total.shape
        self.total = total
        self.gradients, self.hidden, self.product = (
            torch.empty(shape, dtype=dtype, device=total.device)
            for shape in ((rows, vocabulary), (rows, width), (vocabulary, width))
        )
        self.held = 0

    def add(self, gradient: Tensor, hidden: Tensor) -> Tensor:
        """Take in [n, vocabulary] gradients of [n, width] hidden states; the gradients, narrow, are good until the next call."""
        if self.held + len(gradient) > len(self.gradients):
            self.flush()
        rows = slice(self.held, self.held + len(gradient))
        self.held = rows.stop
        self.hidden[rows] = hidden
        return self.gradients[rows].copy_(gradient)

    def flush(self) -> None:
        """Add what was taken in."""
        torch.mm(self.gradients[: self.held].t(), self.hidden[: self.held], out=self.product)
        self.total.add_(self.product)
        self.held = 0


def _log_softmax(logits: Tensor, out: Tensor) -> Tensor:
    result: Tensor = torch.ops.aten._log_softmax.out(logits, -1, False, out=out)
    return result


def _entropy(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """The sum of the cross-entropies, float64."""
    return -log_probabilities.gather(-1, labels.unsqueeze(-1)).sum(dtype=torch.float64)


def _subtract_at(gradient: Tensor, labels: Tensor, weight: float) -> Tensor:
    rows = torch.arange(len(labels), device=labels.device)
    gradient[rows, labels] -= weight
    return gradient
