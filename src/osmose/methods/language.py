"""Distillation and transfer of causal language models (arXiv 2310.02421), with a partition of its own for each token."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.engine.method import Method, Step
from osmose.engine.optimiser import Optimiser, Player
from osmose.errors import UserError, check
from osmose.losses import divergences
from osmose.losses.language import IGNORED, Objective, SampledTokens, States, check_form, distil_tokens
from osmose.models.language import LanguageModel
from osmose.signals import teachers
from osmose.signals.tokens import KNOWN, SURE, FrozenLanguage
from osmose.targets.partition import best_of

_PARTITIONS = {"partition": KNOWN, "partition-unsupervised": SURE}


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Updates of low rank (arXiv 2106.09685).

    Args:
        rank: of each linear layer's update.
        alpha: updates are scaled by alpha / rank.
    """

    rank: int = 16
    alpha: int = 32

    def __post_init__(self) -> None:
        check(self.rank >= 1, "method.lora.rank", self.rank, "at least 1")
        check(self.alpha > 0, "method.lora.alpha", self.alpha, "a number above 0")


class Language(Method):
    """L = alpha * CE(labels) + (1 - alpha) * T^2 * D(student, teacher), a mean over the tokens that count (eq 1).

    Without a teacher alpha is 1: the model is trained, or fine-tuned, on the text alone.

    Args:
        student: the model that trains.
        frozen: "teacher1", "teacher2", ...; and "initial", the initial student.
        target: who teaches a token: teacher; initial; partition, whoever of the initial student and the teachers gives the true
            token the highest probability; partition-unsupervised, whoever is the most confident.
        alpha: weight of the labels.
        temperature: T of the softened distributions.
        divergence: D: forward KL(teacher, student); reverse KL(student, teacher); jensen-shannon between them, at `beta`;
            skewed KL(teacher, beta * teacher + (1 - beta) * student).
        beta: of the divergences that have one; jensen-shannon is forward KL towards 0 and reverse KL towards 1.
        lora: train updates of low rank of the linear layers in place of all weights; they are added to them in the end.
        checkpoint_activations: compute activations again in the backward pass, for less memory and a third more time.
        optimiser: the student's optimiser; norms and biases have no weight decay.
    """

    trains = LanguageModel
    summary = "language models: soft labels by forward, reverse, Jensen-Shannon or skewed divergence; a partition for each token"
    source = "arXiv 2310.02421"

    def __init__(
        self,
        student: LanguageModel,
        frozen: Mapping[str, FrozenLanguage],
        *,
        target: Literal["teacher", "initial", "partition", "partition-unsupervised"] = "teacher",
        alpha: float = 0.5,
        temperature: float = 1.0,
        divergence: Literal["forward", "reverse", "jensen-shannon", "skewed"] = "forward",
        beta: float = 0.5,
        lora: Lora | None = None,
        checkpoint_activations: bool = False,
        optimiser: Optimiser = Optimiser(
            name="adamw",
            lr=5e-4,
            lr_batch=None,
            weight_decay=0.1,
            decay_vectors=False,
            clip=1.0,
            schedule="cosine",
            warmup_epochs=0.05,
        ),
    ) -> None:
        super().__init__()
        check(0 <= alpha <= 1, "method.alpha", alpha, "a share between 0 and 1")
        check(0 < temperature < math.inf, "method.temperature", temperature, "a number above 0")
        check(0 <= beta <= 1, "method.beta", beta, "a share between 0 and 1")
        self.student = student
        self.target = target
        given = teachers(frozen)
        self.alpha = alpha if given or target == "initial" else 1.0
        self.objective = Objective(self.alpha, temperature, divergence, beta)
        if not given and target in _PARTITIONS:
            raise UserError(f"target '{target}' needs a teacher: give --teacher hf:FOLDER")
        if len(given) > 1 and target not in _PARTITIONS:
            raise UserError(f"target '{target}' takes one teacher, {len(given)} given: use target 'partition'")
        roles = {"teacher": given, "initial": ["initial"]}.get(target, ["initial", *given])
        self.speakers = {role: frozen[role] for role in roles} if self.alpha < 1 else {}
        self.common = min((speaker.vocabulary for speaker in self.speakers.values()), default=student.vocabulary)
        if self.speakers and self.alpha == 0 and self.common < student.vocabulary:
            raise UserError(
                f"the student has {student.vocabulary} tokens and its teachers {self.common}, and only the text says that "
                "the others never come: give method.alpha above 0"
            )
        divergences.divergence(divergence, beta)
        for speaker in self.speakers.values():
            check_form(SampledTokens if speaker.speech.samples else States, divergence)
        self.optimiser = optimiser
        if lora is not None:
            student.adapt(lora.rank, lora.alpha)
        if checkpoint_activations and not student.body.supports_gradient_checkpointing:
            raise UserError(
                f"'{student.name}' cannot compute activations again: leave method.checkpoint_activations out"
            )
        if checkpoint_activations:
            student.body.gradient_checkpointing_enable({"use_reentrant": False})

    def reads(self) -> dict[str, tuple[str, ...]]:
        known = [_PARTITIONS[self.target]] if self.target in _PARTITIONS else []
        return {role: (*speaker.speech.fields, *known) for role, speaker in self.speakers.items()}

    def taught_by(self, teachers: Sequence[str]) -> str:
        who = "itself" if self.target == "initial" else " and ".join(teachers)
        by = [f"{who} ({self.target}, {self.objective.divergence}, weight {1 - self.alpha:g})"] if self.speakers else []
        return " and ".join([*by, f"the text (weight {self.alpha:g})"] if self.alpha else by)

    def players(self) -> dict[str, Player]:
        return {"student": self.optimiser.player(self.student.parameters())}

    def forward(self, batch: Batch, clock: Clock) -> Step:
        assert batch.y is not None
        hidden = self.student(batch.x).hidden.flatten(0, 1)
        labels, head = batch.y.flatten(), self.student.head
        count = batch.count or max(1, int((labels != IGNORED).sum()))
        if not self.speakers:
            loss, entropy, _ = distil_tokens(hidden, head, labels, objective=self.objective, count=count)
            return Step(loss, {"cross_entropy": entropy})
        source = self._partition(batch)
        loss, entropy, distance = distil_tokens(
            hidden,
            head,
            labels,
            teacher=[speaker.teach(batch) for speaker in self.speakers.values()],
            source=source,
            vocabulary=self.common,
            objective=self.objective,
            count=count,
        )
        parts = {"cross_entropy": entropy, "divergence": distance}
        if source is not None:
            taught = [(source[labels != IGNORED] == number).sum() / count for number in range(len(self.speakers))]
            parts |= {f"share/{role}": share for role, share in zip(self.speakers, taught, strict=True)}
        return Step(loss, parts)

    def _partition(self, batch: Batch) -> Tensor | None:
        """For each token the place of whoever teaches it."""
        if self.target not in _PARTITIONS:
            return None
        return best_of(
            [speaker.signal(batch, _PARTITIONS[self.target]).flatten() for speaker in self.speakers.values()]
        )

    def products(self) -> dict[str, LanguageModel]:
        return {"student": self.student}
