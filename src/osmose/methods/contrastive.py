"""Contrastive distillation, CD and CRD: how a network relates samples to each other (arXiv 2310.17653, eqs 6 and 7)."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.engine.method import Method, Step
from osmose.engine.optimiser import Optimiser, Player
from osmose.errors import UserError, check
from osmose.losses import cosine_similarities, cross_entropy, kl_divergence
from osmose.methods.crd import CRD, Bank
from osmose.methods.panel import Panel
from osmose.models.network import Network, Outputs
from osmose.random import generator
from osmose.signals import Frozen
from osmose.targets import FlipRule
from osmose.targets.choice import FIRST_TEACHER, INITIAL


class Contrastive(Method):
    """L = contrast_weight * L_contrast + kl_weight * L_KL + cross_entropy_weight * L_XE.

    CD compares, for each sample, the softmax over its cosine similarities with the samples of its micro-batch (eq 6); the row
    is that of whoever teaches the sample. CRD brings the student's embedding of a sample near the teacher's and away from the
    teacher's of samples of other classes, and the other way round (eq 7); both embeddings are learned linear maps of features.

    Args:
        student: the network that trains.
        frozen: "teacher1", "teacher2", ...; and "initial", the initial student.
        loss: cd or crd.
        target: who teaches which sample, for cd and the KL divergence; crd takes "teacher".
        contrast_weight: weight of the contrastive loss.
        kl_weight: weight of the KL divergence.
        cross_entropy_weight: weight of the cross-entropy with the labels.
        temperature: T of the KL divergence.
        bank: embeddings and memory banks of crd.
        optimiser: the student's optimiser, which trains crd's embeddings too.
    """

    summary = "contrastive: similarities within the batch (CD), or embeddings against memory banks (CRD)"
    source = "arXiv 2310.17653, 1910.10699"
    without_labels = "use loss cd with cross_entropy_weight 0 and target 'teacher'"

    def __init__(
        self,
        student: Network,
        frozen: Mapping[str, Frozen],
        *,
        loss: Literal["cd", "crd"] = "cd",
        target: str | FlipRule = "teacher",
        contrast_weight: float = 1.0,
        kl_weight: float = 0.0,
        cross_entropy_weight: float = 1.0,
        temperature: float = 1.0,
        bank: Bank = Bank(),
        optimiser: Optimiser = Optimiser(),
    ) -> None:
        super().__init__()
        weights = {"contrast": contrast_weight, "kl": kl_weight, "cross_entropy": cross_entropy_weight}
        for name, weight in weights.items():
            check(0 <= weight < math.inf, f"method.{name}_weight", weight, "a number of at least 0")
        check(0 < temperature < math.inf, "method.temperature", temperature, "a number above 0")
        if student.num_classes == 1:
            raise UserError("method contrastive compares classes and the student gives one number: use method distill")
        self.panel = Panel(target, frozen, regression=False)
        if loss == "crd" and target != "teacher":
            raise UserError(
                f"crd contrasts the student with one teacher, the target is '{self.panel.name}': use target teacher"
            )
        if self.panel.target.mean:
            raise UserError(
                f"target '{self.panel.name}' teaches with a mean of logits, which has no features: use another"
            )
        self.student = student
        self.loss, self.bank = loss, bank
        self.weights, self.temperature = weights, temperature
        self.optimiser = optimiser
        self.crd: CRD | None = None

    def reads(self) -> dict[str, tuple[str, ...]]:
        return dict.fromkeys(self.panel.roles, ("logits", "features"))

    def fit_to(self, shapes: Sequence[tuple[int, ...]], numbers: Tensor) -> None:
        if self.loss == "crd":
            (shape,) = shapes
            networks = self.student, self.panel.teachers[0].network
            student, teacher = (network.tried(shape).features.shape[-1] for network in networks)
            self.crd = CRD(self.bank, (student, teacher), numbers)

    def needs(self) -> frozenset[str]:
        needs = self.panel.needs()
        if self.weights["cross_entropy"]:
            needs |= {"labels"}
        if self.loss == "crd":
            needs |= {"labels", "whole labels"}
        return frozenset(needs)

    def taught_by(self, teachers: Sequence[str]) -> str:
        by = f"{self.panel.who(teachers)} ({self.loss}, weight {self.weights['contrast']:g})"
        labels = self.weights["cross_entropy"]
        return f"{by} and labels (weight {labels:g})" if labels else by

    def players(self) -> dict[str, Player]:
        embeddings = self.crd.embeddings.parameters() if self.crd else ()
        return {"student": self.optimiser.player([*self.student.parameters(), *embeddings])}

    def forward(self, batch: Batch, clock: Clock) -> Step:
        student: Outputs = self.student(batch.x)
        choice = self.panel.choose(student.logits, batch.y, lambda network: network.signal(batch))
        keep = self.panel.kept(choice)
        if self.crd:
            assert batch.y is not None
            drawn = generator(clock.seed, "crd/negatives", clock.step, clock.shard)
            teacher = self.panel.teachers[0].signal(batch, "features")
            losses = {"contrast": self.crd((student.features, teacher), batch.index, batch.y, drawn)}
        else:
            theirs = self._similarities(batch, choice.source)
            losses = {"contrast": kl_divergence(cosine_similarities(student.features), theirs, keep=keep)}
        if self.weights["kl"]:
            losses["kl"] = kl_divergence(student.logits, choice.logits, temperature=self.temperature, keep=keep)
        if self.weights["cross_entropy"]:
            assert batch.y is not None
            losses["cross_entropy"] = cross_entropy(student.logits, batch.y)
        total = torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()
        return Step(total, {name: loss.detach() for name, loss in losses.items()})

    def after_step(self, clock: Clock) -> None:
        if self.crd:
            self.crd.after_step()

    def products(self) -> dict[str, Network]:
        return {"student": self.student}

    def _similarities(self, batch: Batch, source: Tensor) -> Tensor:
        """[n, n]: for each sample, its similarities with the batch as whoever teaches it sees them."""
        target, teachers = self.panel.target, enumerate(self.panel.teachers, start=FIRST_TEACHER)
        speakers = dict(teachers) if target.teacher else {}
        if target.initial and self.panel.initial:
            speakers[INITIAL] = self.panel.initial
        chosen = torch.zeros(len(source), len(source), device=source.device)
        for number, network in speakers.items():
            theirs = cosine_similarities(network.signal(batch, "features"))
            chosen = torch.where((source == number).unsqueeze(-1), theirs, chosen)
        return chosen
