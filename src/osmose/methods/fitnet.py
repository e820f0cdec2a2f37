"""Hints: a middle layer of the teacher guides one of the student, before the teacher's answers do (FitNets, arXiv 1412.6550)."""

from collections.abc import Mapping

from torch import Tensor, nn

from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.engine.method import Step
from osmose.engine.optimiser import Optimiser
from osmose.errors import UserError, check
from osmose.methods.guided import Answers, Guided, mean_square, require_loss, summed
from osmose.models.chain import chain
from osmose.models.layout import Layout
from osmose.models.network import STATES, Network
from osmose.signals import Frozen


class FitNet(Guided):
    """First L = 1/2 * |u - r(v)|^2 (eq 3), with the teacher's hint u, the student's guided layer v and a learned regressor r;
    then the student's answers alone, by labels and a softened divergence (eq 4).

    The regressor is linear for each token or place, a convolution of 1x1; hints of another grid are averaged or interpolated. The
    mean square is over features too, so that the size of the layers does not count.

    Args:
        student: the network that trains.
        frozen: "teacher1"; and "initial", the initial student.
        hint: the teacher's layer, by its path in the module; none takes the middle one of a known family.
        guided: the student's.
        hint_share: share of the run's steps in which hints are learned, and nothing else.
        answers: what teaches the student's answers after that.
        optimiser: the optimiser of student and regressor.
    """

    summary = "hints: a middle layer learns what a middle layer of the teacher gives, then distillation by logits"
    source = "arXiv 1412.6550"
    source_of_states = "hints"

    temperature = 3.0

    def __init__(
        self,
        student: Network,
        frozen: Mapping[str, Frozen],
        *,
        hint: str | None = None,
        guided: str | None = None,
        hint_share: float = 0.25,
        answers: Answers = Answers(kl=1.0, temperature=temperature),
        optimiser: Optimiser = Optimiser(),
    ) -> None:
        check(0 <= hint_share <= 1, "method.hint_share", hint_share, "a share between 0 and 1")
        super().__init__(
            student,
            frozen,
            answers=answers,
            student_fields=[STATES + (guided or _middle(student))],
            teacher_fields=[STATES + (hint or _middle(frozen["teacher1"].network))] if "teacher1" in frozen else [],
            optimiser=optimiser,
        )
        self.hint_share = hint_share
        if hint_share < 1:
            require_loss([answers.labels, answers.kl], "method.answers.labels and .kl")
        if 0 < hint_share < 1 and optimiser.schedule == "plateau":
            raise UserError("schedule plateau would end the run while hints are learned: use constant or cosine")

    def adapt(self, student: list[Layout], teacher: list[Layout]) -> None:
        (self.guided,), (self.hint,) = student, teacher
        self.added["regressor"] = nn.Linear(self.guided.width, self.hint.width)

    def forward(self, batch: Batch, clock: Clock) -> Step:
        if clock.step >= self.hint_share * clock.total:
            return summed(self.taught(self.student(batch.x).logits, batch))
        (field,) = self.student_fields
        ours = self.student(batch.x).field(field)
        return summed(self.guide([ours], [self.teacher.signal(batch, *self.teacher_fields)], batch, clock))

    def guide(
        self, student: list[Tensor], teacher: list[Tensor], batch: Batch, clock: Clock
    ) -> dict[str, tuple[float, Tensor]]:
        guessed = self.added["regressor"](self.guided.spread(self.guided.tokens(student[0]), self.hint))
        return {"hint": (0.5, mean_square(guessed, self.hint.tokens(teacher[0])))}


def _middle(network: Network) -> str:
    layers = chain(network)
    return layers[(len(layers) - 1) // 2]
