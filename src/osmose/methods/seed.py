"""Distillation of a self-supervised network: how its features relate a sample to others is learned (SEED, arXiv 2101.04731)."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.engine.method import Method, Step
from osmose.engine.optimiser import Optimiser, Player
from osmose.errors import check
from osmose.losses import soft_targets
from osmose.methods.one_of_each import one_of_each
from osmose.methods.queue import Queue
from osmose.models.backbones import Backbones
from osmose.signals import Frozen


class Seed(Method):
    """L = H(softmax(z_T . D / T_T), softmax(z_S . D / T_S)), D the teacher's unit features of this sample and of the last ones.

    z_T are the teacher's unit features, z_S a perceptron's of the student's.

    Args:
        student: the network that trains.
        frozen: "teacher1".
        queue: how many of the last samples are compared with.
        hidden: units of the perceptron's hidden layer; none takes as many as the student has features.
        student_temperature: T_S.
        teacher_temperature: T_T.
        optimiser: of student and perceptron.
    """

    trains = Backbones
    summary = "self-supervised teachers: how their features relate a sample to others is learned (SEED)"
    source = "arXiv 2101.04731"

    def __init__(
        self,
        student: Backbones,
        frozen: Mapping[str, Frozen],
        *,
        queue: int = 65536,
        hidden: int | None = None,
        student_temperature: float = 0.2,
        teacher_temperature: float = 0.01,
        optimiser: Optimiser = Optimiser(lr=0.03, weight_decay=1e-4, schedule="cosine"),
    ) -> None:
        super().__init__()
        check(queue >= 1, "method.queue", queue, "at least 1")
        check(hidden is None or hidden >= 1, "method.hidden", hidden, "at least 1, or null")
        for key, value in (("student_temperature", student_temperature), ("teacher_temperature", teacher_temperature)):
            check(value > 0, f"method.{key}", value, "a number above 0")
        self.network, self.teacher = one_of_each(type(self).__name__.lower(), student, frozen)
        self.student = student
        self.size, self.hidden, self.optimiser = queue, hidden, optimiser
        self.temperatures = {"student": student_temperature, "teacher": teacher_temperature}

    def needs(self) -> frozenset[str]:
        return frozenset({"teacher"})

    def reads(self) -> dict[str, tuple[str, ...]]:
        return {"teacher1": ("features",)}

    def taught_by(self, teachers: Sequence[str]) -> str:
        return f"{' and '.join(teachers)} (likeness to other samples)"

    def fit_to(self, shapes: Sequence[tuple[int, ...]], numbers: Tensor) -> None:
        assert self.teacher is not None, "asked for by `needs`"
        (shape,) = shapes
        ours, theirs = (one.tried(shape).features.shape[1] for one in (self.network, self.teacher.network))
        hidden = self.hidden or ours
        self.projection = nn.Sequential(nn.Linear(ours, hidden), nn.ReLU(), nn.Linear(hidden, theirs))
        self.queue = Queue(min(self.size, len(numbers)), theirs)

    def players(self) -> dict[str, Player]:
        return {"student": self.optimiser.player([*self.network.parameters(), *self.projection.parameters()])}

    def forward(self, batch: Batch, clock: Clock) -> Step:
        assert self.teacher is not None
        features = self.projection(self.network(batch.x).features)
        with torch.autocast(batch.x.device.type, enabled=False):
            ours = F.normalize(features.float(), dim=-1)
            theirs = F.normalize(self.teacher.signal(batch, "features"), dim=-1)
            loss = self.compare(*(self.queue.likeness(one, theirs, batch.index) for one in (ours, theirs)))
        self.queue.see(batch.index, theirs)
        return Step(loss)

    def compare(self, scores: Tensor, theirs: Tensor) -> Tensor:
        """The loss of the student's likenesses to others and the teacher's, both [n, 1 + queue]."""
        target = (theirs / self.temperatures["teacher"]).softmax(-1)
        return soft_targets(scores, target, temperature=self.temperatures["student"])

    def after_step(self, clock: Clock) -> None:
        self.queue.after_step()

    def products(self) -> dict[str, Backbones]:
        return {"student": self.student}
