"""Training with labels alone: zoo networks, teachers, and the "student alone" rows of tables."""

from collections.abc import Mapping, Sequence
from typing import Literal

from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.engine.method import Method, Step
from osmose.engine.optimiser import Optimiser, Player
from osmose.errors import check
from osmose.losses import label_loss
from osmose.models.network import Network
from osmose.signals import Frozen


class Supervised(Method):
    """Cross-entropy with the true classes, or mean squared error where labels are numbers.

    Args:
        student: the network that trains.
        frozen: not used.
        train: all parameters, or the head only, behind a body that stays in evaluation mode (linear probing; the paper's
            head training on other data sets).
        smoothing: label smoothing of the cross-entropy.
        optimiser: the student's optimiser.
    """

    summary = "labels only: trains fresh networks, fine-tunes trained ones, fits a new head"
    source = "the control of every paper"

    def __init__(
        self,
        student: Network,
        frozen: Mapping[str, Frozen],
        *,
        train: Literal["all", "head"] = "all",
        smoothing: float = 0.0,
        optimiser: Optimiser = Optimiser(lr=0.1, weight_decay=1e-4, schedule="cosine"),
    ) -> None:
        super().__init__()
        check(0 <= smoothing <= 1, "method.smoothing", smoothing, "a share between 0 and 1")
        self.student = student
        self.head_only = train == "head"
        self.smoothing = smoothing
        self.optimiser = optimiser
        if self.head_only:
            student.requires_grad_(False)
            student.head.requires_grad_(True)

    def needs(self) -> frozenset[str]:
        return frozenset({"labels"})

    def taught_by(self, teachers: Sequence[str]) -> str:
        return "labels"

    def players(self) -> dict[str, Player]:
        trained = self.student.head if self.head_only else self.student
        return {"student": self.optimiser.player(trained.parameters())}

    def train(self, mode: bool = True) -> "Supervised":
        super().train(mode)
        if self.head_only:
            self.student.eval()
        return self

    def forward(self, batch: Batch, clock: Clock) -> Step:
        logits = self.student(batch.x).logits
        assert batch.y is not None
        return Step(label_loss(logits, batch.y, smoothing=self.smoothing))

    def products(self) -> dict[str, Network]:
        return {"student": self.student}
