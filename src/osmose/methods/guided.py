"""What the methods share that compare what layers of student and teacher give, beside the student's answers."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.engine.method import Method, Step
from osmose.engine.optimiser import Optimiser, Player
from osmose.errors import UserError, check
from osmose.losses import kl_divergence, label_loss, squared_error
from osmose.methods.panel import Panel
from osmose.models.layout import Layout
from osmose.models.network import STATES, Network, Outputs
from osmose.signals import Frozen, teachers
from osmose.targets import find_target


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What teaches the student's answers: labels * L_labels + kl * L_KL.

    Args:
        labels: weight of the cross-entropy with the labels, or of the squared error.
        kl: weight of the divergence from whoever teaches a sample, or of the squared difference.
        target: who that is, by name.
        temperature: T of the divergence; of no meaning where one number is learned.
    """

    labels: float = 1.0
    kl: float = 0.0
    target: str = "teacher"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for key in ("labels", "kl"):
            value = getattr(self, key)
            check(0 <= value < math.inf, f"method.answers.{key}", value, "a number of at least 0")
        check(0 < self.temperature < math.inf, "method.answers.temperature", self.temperature, "a number above 0")
        find_target(self.target)
        if not self.kl and self.target != "teacher":
            raise UserError(f"method.answers.target is '{self.target}' and method.answers.kl is 0: give it a weight")


class Guided(Method):
    """L = answers + what a subclass makes of states of student and teacher.

    Args:
        student: the network that trains.
        frozen: "teacher1"; and "initial", the initial student.
        answers: what teaches the student's answers.
        student_fields: what is asked of the student, "features" or "states.PATH".
        teacher_fields: what is asked of the teacher.
        optimiser: the student's optimiser, which trains what a subclass adds too.
    """

    without_labels = "set method.answers.labels to 0"
    temperature = 1.0
    """Of the answers, where a user gives none."""

    def __init__(
        self,
        student: Network,
        frozen: Mapping[str, Frozen],
        *,
        answers: Answers,
        student_fields: Sequence[str],
        teacher_fields: Sequence[str],
        optimiser: Optimiser,
    ) -> None:
        super().__init__()
        given = teachers(frozen)
        if len(given) != 1:
            what = (
                "needs a teacher: give --teacher" if not given else f"takes one teacher, {len(given)} given: choose one"
            )
            raise UserError(f"this method compares a student with one other network and {what}")
        self.student = student
        self.teacher = frozen["teacher1"]
        self.answers = answers
        self.panel = Panel(answers.target, frozen, regression=student.num_classes == 1) if answers.kl else None
        if student.num_classes == 1 and answers.temperature not in (1, self.temperature):
            raise UserError(
                "method.answers.temperature is about classes, and the student gives one number: leave it out"
            )
        self.student_fields, self.teacher_fields = list(student_fields), list(teacher_fields)
        self.teacher_reads = self.teacher_fields
        self.optimiser = optimiser
        student.listen_for(self.student_fields)
        self.added = nn.ModuleDict()

    def reads(self) -> dict[str, tuple[str, ...]]:
        fields = {"teacher1": tuple(self.teacher_reads)} if self.teacher_reads else {}
        for role in self.panel.roles if self.panel else ():
            fields[role] = (*fields.get(role, ()), "logits")
        return fields

    def needs(self) -> frozenset[str]:
        needs = {"teacher"} | (self.panel.needs() if self.panel else set())
        return frozenset(needs | ({"labels"} if self.answers.labels else set()))

    def taught_by(self, teachers: Sequence[str]) -> str:
        by = [f"{' and '.join(teachers)} ({self.source_of_states})"]
        if self.panel:
            by.append(f"{self.panel.who(teachers)} ({self.panel.name}, weight {self.answers.kl:g})")
        return " and ".join([*by, f"labels (weight {self.answers.labels:g})"] if self.answers.labels else by)

    source_of_states: str = "by its states"
    """How the teacher teaches, in a few words."""

    def fit_to(self, shapes: Sequence[tuple[int, ...]], numbers: Tensor) -> None:
        self.teacher.network.listen_for(self.teacher_fields)
        student, teacher = (self.student, self.student_fields), (self.teacher.network, self.teacher_fields)
        self.adapt(*([_layout(network, one, *shapes) for one in fields] for network, fields in (student, teacher)))

    def adapt(self, student: list[Layout], teacher: list[Layout]) -> None:
        """Told once how the fields of both are laid out: make what trains beside the student, in `added` by its optimiser."""

    @abstractmethod
    def guide(
        self, student: list[Tensor], teacher: list[Tensor], batch: Batch, clock: Clock
    ) -> dict[str, tuple[float, Tensor]]:
        """By name the weight and the value of each loss between the fields of both networks; what is only logged weighs 0.

        Args:
            student: its fields.
            teacher: those of its fields that are read.
            batch: of samples.
            clock: of this micro-batch.
        """

    def players(self) -> dict[str, Player]:
        return {"student": self.optimiser.player([*self.student.parameters(), *self.added.parameters()])}

    def forward(self, batch: Batch, clock: Clock) -> Step:
        student: Outputs = self.student(batch.x)
        return summed({**self.taught(student.logits, batch), **self.guidance(student, batch, clock)})

    def guidance(self, student: Outputs, batch: Batch, clock: Clock) -> dict[str, tuple[float, Tensor]]:
        """What `guide` makes of the student's outputs."""
        ours = [_given(student, one) for one in self.student_fields]
        theirs = [self.teacher.signal(batch, one) for one in self.teacher_reads]
        return self.guide(ours, theirs, batch, clock)

    def taught(self, logits: Tensor, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        """By name the weight and the value of each loss of the student's answers."""
        losses: dict[str, tuple[float, Tensor]] = {}
        if self.answers.labels:
            assert batch.y is not None
            losses["labels"] = (self.answers.labels, label_loss(logits, batch.y))
        if self.panel:
            choice = self.panel.choose(logits, batch.y, lambda network: network.signal(batch))
            divergence = squared_error if self.panel.regression else kl_divergence
            found = divergence(
                logits, choice.logits, temperature=self.answers.temperature, keep=self.panel.kept(choice)
            )
            losses["kl"] = (self.answers.kl, found)
        return losses

    def products(self) -> dict[str, Network]:
        return {"student": self.student}


def require_loss(weights: Sequence[float], keys: str) -> None:
    """Raise `UserError` where all weights of what trains at the same time are 0."""
    if not any(weights):
        raise UserError(f"{keys} are 0, so that there is nothing to learn: give one of them a weight")


def summed(losses: Mapping[str, tuple[float, Tensor]]) -> Step:
    """The step of weighted losses: their sum, and the value of each."""
    total = torch.stack([weight * loss for weight, loss in losses.values()]).sum()
    return Step(total, {name: loss.detach() for name, (_, loss) in losses.items()})


def mean_square(ours: Tensor, theirs: Tensor, *, relative: bool = False) -> Tensor:
    """The mean of (ours - theirs)^2 over samples and features, in float32; over the mean of theirs^2 where it is relative.

    Where theirs trains too, both means are differentiated: a relative error does not change when both are scaled, and so does not
    shrink them.
    """
    ours, theirs = ours.float(), theirs.float()
    error = (ours - theirs).square().mean()
    return error / theirs.square().mean().clamp(min=1e-12) if relative else error


def _given(outputs: Outputs, field: str) -> Tensor:
    found = outputs.field(field)
    assert found is not None, "the layout was asked at the start"
    return found


def _layout(network: Network, field: str, shape: tuple[int, ...]) -> Layout:
    state = network.tried(shape).field(field)
    if state is None:
        raise UserError(f"'{network.name}' gives no {field}: name a layer")
    image = (network.preprocessing.size or shape[-2:]) if network.preprocessing else (1, 1)
    return Layout.of(
        state,
        channels_last=network.channels_last,
        where=f"layer '{field.removeprefix(STATES)}' of '{network.name}'",
        image=(image[0], image[1]),
        front=getattr(network.body, "num_prefix_tokens", None),
    )
