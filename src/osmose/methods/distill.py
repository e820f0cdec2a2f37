"""Knowledge distillation by logits between two trained models (arXiv 2310.17653; Hinton et al. 2015)."""

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
from osmose.losses import (
    cross_entropy,
    cross_entropy_of_probabilities,
    kl_divergence,
    soft_cross_entropy,
    squared_error,
    top_k_logits,
)
from osmose.methods.panel import Panel
from osmose.models.network import Network
from osmose.signals import Frozen
from osmose.targets import FlipRule
from osmose.targets.choice import INITIAL, MEAN


class Distill(Method):
    """L = kl_weight * L_KL + (1 - kl_weight) * L_XE, where L_KL compares the student with each sample's target (eqs 1, 2, 5).

    KL-Dist is the default; XE-KL sets `kl_weight` below 1; KL+DP is target "partition", its label-free form
    "partition-unsupervised".

    Args:
        student: the network that trains.
        frozen: "teacher1", "teacher2", ...; and "initial", the initial student.
        target: who teaches which sample: a name (see `osmose show methods`), or who teaches positive, negative and neutral flips.
        temperature: T of the softened distributions.
        kl_weight: lambda, the weight of the distillation loss; the rest goes to cross-entropy with the labels.
        loss: KL divergence, or cross-entropy with the soft target (the same gradient; other reported values).
        top_k: compare only the target's k most probable classes; none compares all.
        smoothing: label smoothing of the cross-entropy.
        cross_entropy_on: logits, or probabilities as in the paper's public code, which takes the softmax twice.
        head_warmup_epochs: epochs at the start in which only the student's head trains.
        optimiser: the student's optimiser.
    """

    sources: Tensor
    without_labels = "use target 'partition-unsupervised' with kl_weight 1"
    summary = "soft targets by logits: KL, XE-KL, KL with data partitioning, top-k, label smoothing"
    source = "arXiv 2310.17653"

    def __init__(
        self,
        student: Network,
        frozen: Mapping[str, Frozen],
        *,
        target: str | FlipRule = "teacher",
        temperature: float = 1.0,
        kl_weight: float = 1.0,
        loss: Literal["kl", "soft-cross-entropy"] = "kl",
        top_k: int | None = None,
        smoothing: float = 0.0,
        cross_entropy_on: Literal["logits", "probabilities"] = "logits",
        head_warmup_epochs: int = 0,
        optimiser: Optimiser = Optimiser(),
    ) -> None:
        super().__init__()
        check(0 <= kl_weight <= 1, "method.kl_weight", kl_weight, "a share between 0 and 1")
        check(0 < temperature < math.inf, "method.temperature", temperature, "a number above 0")
        classes = student.num_classes
        check(top_k is None or 1 <= top_k <= classes, "method.top_k", top_k, f"1 to {classes}, or null for all classes")
        check(0 <= smoothing <= 1, "method.smoothing", smoothing, "a share between 0 and 1")
        check(head_warmup_epochs >= 0, "method.head_warmup_epochs", head_warmup_epochs, "at least 0")
        self.student = student
        self.panel = Panel(target, frozen, regression=student.num_classes == 1)
        self.temperature, self.kl_weight, self.top_k, self.smoothing = temperature, kl_weight, top_k, smoothing
        if self.panel.regression:
            given = {
                "top_k": top_k is not None,
                "temperature": temperature != 1,
                "smoothing": smoothing != 0,
                "loss": loss != "kl",
                "cross_entropy_on": cross_entropy_on != "logits",
            }
            for key in (key for key, is_given in given.items() if is_given):
                raise UserError(f"method.{key} is about classes, and the student gives one number: leave it out")
        by_logits = kl_divergence if loss == "kl" else soft_cross_entropy
        self.divergence = squared_error if self.panel.regression else by_logits
        self.cross_entropy = cross_entropy if cross_entropy_on == "logits" else cross_entropy_of_probabilities
        self.head_warmup_epochs = head_warmup_epochs
        sources = {"initial": INITIAL}
        if self.panel.target.teacher:
            sources |= {f"teacher{number}": number for number in range(1, len(self.panel.teachers) + 1)}
        if self.panel.target.mean:
            sources["mean"] = MEAN
        self.share_names = [f"share/{name}" for name in sources]
        self.register_buffer("sources", torch.tensor(list(sources.values())), persistent=False)
        self.optimiser = optimiser

    def reads(self) -> dict[str, tuple[str, ...]]:
        return dict.fromkeys(self.panel.roles, ("logits",))

    def needs(self) -> frozenset[str]:
        return frozenset(self.panel.needs() | ({"labels"} if self.kl_weight < 1 else set()))

    def taught_by(self, teachers: Sequence[str]) -> str:
        by = [f"{self.panel.who(teachers)} ({self.panel.name}, weight {self.kl_weight:g})"] if self.kl_weight else []
        return " and ".join([*by, f"labels (weight {1 - self.kl_weight:g})"] if self.kl_weight < 1 else by)

    def players(self) -> dict[str, Player]:
        if not self.head_warmup_epochs:
            return {"student": self.optimiser.player(self.student.parameters())}
        head = list(self.student.head.parameters())
        heads = set(head)
        body = [parameter for parameter in self.student.parameters() if parameter not in heads]
        return {"head": self.optimiser.player(head), "body": self.optimiser.player(body)}

    def moving(self, clock: Clock) -> tuple[str, ...] | None:
        return ("head",) if clock.epoch < self.head_warmup_epochs else None

    def forward(self, batch: Batch, clock: Clock) -> Step:
        student = self.student(batch.x).logits
        choice = self.panel.choose(student, batch.y, lambda network: network.signal(batch))
        ours, theirs = student, choice.logits
        if self.top_k:
            ours, theirs = top_k_logits(ours, theirs, self.top_k)
        kl = self.divergence(ours, theirs, temperature=self.temperature, keep=self.panel.kept(choice))
        shares = (choice.source[:, None] == self.sources).float().mean(0).unbind()
        parts = {"kl": kl.detach(), **dict(zip(self.share_names, shares, strict=True))}
        loss = kl
        if self.kl_weight < 1:
            assert batch.y is not None
            if self.panel.regression:
                xe = squared_error(student, batch.y)
            else:
                xe = self.cross_entropy(student, batch.y, smoothing=self.smoothing)
            parts["cross_entropy"] = xe.detach()
            loss = self.kl_weight * kl + (1 - self.kl_weight) * xe
        return Step(loss, parts)

    def products(self) -> dict[str, Network]:
        return {"student": self.student}
