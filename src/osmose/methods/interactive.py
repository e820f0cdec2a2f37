"""Interactive communication: student and teacher exchange messages that they learn to write and read (arXiv 2310.03188)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.engine.method import Step
from osmose.engine.optimiser import Optimiser, Player
from osmose.errors import check
from osmose.methods.communication import Communicator, Message
from osmose.methods.guided import Answers, Guided, mean_square, summed
from osmose.models.chain import chain
from osmose.models.layout import Layout
from osmose.models.network import STATES, Network
from osmose.models.part import Part
from osmose.signals import Frozen


@dataclass(frozen=True, kw_only=True)
class Warmup:
    """Steps at the start in which not everybody trains; they are part of the run's.

    Args:
        student: steps in which the student trains by its answers alone.
        communicators: steps after these in which encoders and decoders train, and the student does not.
    """

    student: int = 0
    communicators: int = 0

    def __post_init__(self) -> None:
        for key in ("student", "communicators"):
            check(getattr(self, key) >= 0, f"method.warmup.{key}", getattr(self, key), "at least 0")


class Interactive(Guided):
    """L = answers + w_i * L_interact + w_m * L_MC + w_s * L_SC.

    Both networks, student g and teacher h, are cut into a low and a high part; s and t are the states behind them. In each round
    the student says what its state is; the teacher hears that as a low state of its own, its high part interprets it, and it says
    what came of it; the student hears that as a low state, and its own high part makes t' of it, where the next round begins.
    L_interact is the sum over rounds of |t'_g - t_g|^2. Messages of both about the same sample are to be the same, L_MC =
    |E_g(s_g) - E_h(s_h)|^2 + |E_g(t_g) - E_h(t_h)|^2. Each is to hear its own and the other's message as its own state, L_SC =
    |D_g E_g(s_g) - s_g|^2 + |D_h E_h(s_h) - s_h|^2 + |D_g E_h(s_h) - s_g|^2 + |D_h E_g(s_g) - s_h|^2. All are means over samples
    and numbers.

    The paper's section on the method is not public; docs/methods/interactive.md says which of these choices are ours.

    Args:
        student: the network that trains.
        frozen: "teacher1"; and "initial", the initial student.
        student_low: the student's layer behind the low part, by its path in the module; none takes the first of a known family.
        student_high: the one behind the high part; none takes the last.
        teacher_low: the teacher's.
        teacher_high: the teacher's.
        rounds: K, how often they exchange messages; 0 leaves the consistency losses alone.
        speak_from: which of its states the student speaks of first.
        interact_on: what a round is compared by: the student's high states; its low states; or question and answer as messages.
        stop_gradient: whether the student's own state in that comparison is fixed.
        noise: deviation of Gaussian noise on what the teacher hears.
        interact_weight: w_i.
        message_weight: w_m.
        state_weight: w_s.
        relative: whether squared differences of states are over the mean square of the state that is compared with.
        message: what messages are.
        warmup: steps in which not everybody trains.
        answers: what teaches the student's answers.
        optimiser: the optimiser of the student, and another like it of encoders and decoders.
    """

    summary = "interactive communication: student and teacher exchange messages about their states"
    source = "arXiv 2310.03188"
    source_of_states = "messages"

    def __init__(
        self,
        student: Network,
        frozen: Mapping[str, Frozen],
        *,
        student_low: str | None = None,
        student_high: str | None = None,
        teacher_low: str | None = None,
        teacher_high: str | None = None,
        rounds: int = 1,
        speak_from: Literal["low", "high"] = "high",
        interact_on: Literal["high", "low", "messages"] = "high",
        stop_gradient: bool = False,
        noise: float = 0.0,
        interact_weight: float = 1.0,
        message_weight: float = 1.0,
        state_weight: float = 1.0,
        relative: bool = True,
        message: Message = Message(),
        warmup: Warmup = Warmup(),
        answers: Answers = Answers(),
        optimiser: Optimiser = Optimiser(),
    ) -> None:
        check(rounds >= 0, "method.rounds", rounds, "at least 0")
        for name, value in (
            ("noise", noise),
            ("interact_weight", interact_weight),
            ("message_weight", message_weight),
            ("state_weight", state_weight),
        ):
            check(0 <= value < math.inf, f"method.{name}", value, "a number of at least 0")
        own = _ends(student, student_low, student_high)
        paths = _ends(frozen["teacher1"].network, teacher_low, teacher_high) if "teacher1" in frozen else own
        super().__init__(
            student,
            frozen,
            answers=answers,
            student_fields=[STATES + path for path in own],
            teacher_fields=[STATES + path for path in paths],
            optimiser=optimiser,
        )
        self.paths = {"student": own, "teacher": paths}
        self.rounds, self.speak_from, self.interact_on = rounds, speak_from, interact_on
        self.stop_gradient, self.noise, self.relative = stop_gradient, noise, relative
        self.weights = {"interact": interact_weight, "messages": message_weight, "states": state_weight}
        self.message, self.warmup = message, warmup

    def fit_to(self, shape: tuple[int, ...], numbers: Tensor) -> None:
        super().fit_to(shape, numbers)
        self.student_part = Part(self.student, *self.paths["student"], shape)
        self.teacher_part = Part(self.teacher.network, *self.paths["teacher"], shape)

    def adapt(self, student: list[Layout], teacher: list[Layout]) -> None:
        common = min((*student, *teacher), key=lambda layout: layout.count)
        self.student_side, self.teacher_side = (
            Communicator({"low": low, "high": high}, common, self.message) for low, high in (student, teacher)
        )

    def players(self) -> dict[str, Player]:
        return {
            "student": self.optimiser.player(self.student.parameters()),
            "communicators": self.optimiser.player([*self.student_side.parameters(), *self.teacher_side.parameters()]),
        }

    def moving(self, clock: Clock) -> tuple[str, ...] | None:
        if clock.step < self.warmup.student:
            return ("student",)
        return ("communicators",) if clock.step < self.warmup.student + self.warmup.communicators else None

    def forward(self, batch: Batch, clock: Clock) -> Step:
        moving = self.moving(clock)
        self.student.train(moving != ("communicators",))
        if moving == ("student",):
            return summed(self.taught(self.student(batch.x).logits, batch))
        return super().forward(batch, clock)

    def guide(
        self, student: list[Tensor], teacher: list[Tensor], batch: Batch, clock: Clock
    ) -> dict[str, tuple[float, Tensor]]:
        weights, losses = self.weights, {}
        if weights["interact"] and self.rounds:
            with clock.stream("interactive/noise"):
                losses["interact"] = (weights["interact"], self._interact(*student))
        if weights["messages"]:
            losses["messages"] = (weights["messages"], self._same_messages(student, teacher))
        if weights["states"]:
            losses["states"] = (weights["states"], self._own_states(student[0], teacher[0]))
        return losses

    def _interact(self, low: Tensor, high: Tensor) -> Tensor:
        """The sum over rounds of what the student's state and what comes back of it differ by."""
        student, teacher = self.student_side, self.teacher_side
        level, state = self.speak_from, low if self.speak_from == "low" else high
        own = {"high": high, "low": low}.get(self.interact_on)
        own = own.detach() if own is not None and self.stop_gradient else own
        errors = []
        for _ in range(self.rounds):
            question = student.speak(state, level)
            heard = teacher.hear(question)
            if self.noise:
                heard = heard + self.noise * torch.randn_like(heard)
            answer = teacher.speak(self._interpreted(heard), "high")
            back = student.hear(answer)
            level, state = "high", self.student_part(back)
            if own is None:
                asked = question.detach() if self.stop_gradient else question
                errors.append(mean_square(answer, asked))
            else:
                errors.append(self._error(back if self.interact_on == "low" else state, own))
        return torch.stack(errors).sum()

    def _interpreted(self, heard: Tensor) -> Tensor:
        """What the teacher's high part makes of a low state, in the arithmetic of frozen networks."""
        with torch.autocast(heard.device.type, torch.bfloat16, enabled=self.teacher.mixed):
            return self.teacher_part(heard.float()).float()

    def _same_messages(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        ours, theirs = self.student_side, self.teacher_side
        low = mean_square(ours.speak(student[0], "low"), theirs.speak(teacher[0], "low"))
        return low + mean_square(ours.speak(student[1], "high"), theirs.speak(teacher[1], "high"))

    def _own_states(self, student: Tensor, teacher: Tensor) -> Tensor:
        ours, theirs = self.student_side, self.teacher_side
        said, answered = ours.speak(student, "low"), theirs.speak(teacher, "low")
        heard = [
            (side.hear(one), state) for side, state in ((ours, student), (theirs, teacher)) for one in (said, answered)
        ]
        return torch.stack([self._error(one, state) for one, state in heard]).sum()

    def _error(self, found: Tensor, state: Tensor) -> Tensor:
        return mean_square(found, state, relative=self.relative)


def _ends(network: Network, low: str | None, high: str | None) -> tuple[str, str]:
    """The layers behind the low and the high part, those that were named or those of a known family."""
    if low and high:
        return low, high
    layers = chain(network)
    return low or layers[0], high or layers[-1]
