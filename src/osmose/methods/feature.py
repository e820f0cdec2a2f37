"""Feature distillation: a learned projection of the student's features is to be the teacher's (arXiv 1412.6550, 2203.14001)."""

import math
from collections.abc import Mapping

from torch import Tensor, nn

from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.engine.optimiser import Optimiser
from osmose.errors import check
from osmose.methods.guided import Answers, Guided, mean_square, require_loss
from osmose.models.layout import Layout
from osmose.models.network import STATES, Network
from osmose.signals import Frozen


class Feature(Guided):
    """L = answers + weight * |P f_s - f_t|^2 / |f_t|^2, means over the batch.

    Args:
        student: the network that trains.
        frozen: "teacher1"; and "initial", the initial student.
        student_layer: whose output f_s is, by its path in the module; none takes the features that the classifier reads.
        teacher_layer: whose output f_t is.
        weight: of the comparison.
        answers: what teaches the student's answers.
        optimiser: the optimiser of student and projection.
    """

    summary = "features: a projection of the student's features is to be the teacher's"
    source = "arXiv 1412.6550, 2203.14001"
    source_of_states = "features"

    def __init__(
        self,
        student: Network,
        frozen: Mapping[str, Frozen],
        *,
        student_layer: str | None = None,
        teacher_layer: str | None = None,
        weight: float = 1.0,
        answers: Answers = Answers(),
        optimiser: Optimiser = Optimiser(),
    ) -> None:
        check(0 <= weight < math.inf, "method.weight", weight, "a number of at least 0")
        super().__init__(
            student,
            frozen,
            answers=answers,
            student_fields=[STATES + student_layer if student_layer else "features"],
            teacher_fields=[STATES + teacher_layer if teacher_layer else "features"],
            optimiser=optimiser,
        )
        self.weight = weight
        require_loss([weight, answers.labels, answers.kl], "method.weight, method.answers.labels and .kl")

    def adapt(self, student: list[Layout], teacher: list[Layout]) -> None:
        (self.ours,), (self.theirs,) = student, teacher
        self.added["projection"] = nn.Linear(self.ours.width, self.theirs.width)

    def guide(
        self, student: list[Tensor], teacher: list[Tensor], batch: Batch, clock: Clock
    ) -> dict[str, tuple[float, Tensor]]:
        guessed = self.added["projection"](self.ours.spread(self.ours.tokens(student[0]), self.theirs))
        return {"feature": (self.weight, mean_square(guessed, self.theirs.tokens(teacher[0]), relative=True))}
