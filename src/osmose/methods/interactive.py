"""Interactive communication: student and teacher exchange messages that they learn to write and read (arXiv 2310.03188)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.engine.method import Step
from osmose.engine.optimiser import Optimiser, Player
from osmose.errors import UserError, check
from osmose.methods.communication import Communicator, Level, Message
from osmose.methods.guided import Answers, Guided, mean_square, require_loss, summed
from osmose.models.chain import ends
from osmose.models.layout import Layout
from osmose.models.network import STATES, Network
from osmose.models.part import Part
from osmose.signals import Frozen

_LEVELS: tuple[Level, Level] = ("low", "high")


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
        rounds: K, how often they exchange messages; 0 leaves the consistency losses alone, and any two layers will do.
        speak_from: which of its states the student speaks of first.
        interact_on: what a round is compared by: the student's high states; its low states; or question and answer as messages.
        stop_gradient: whether what is the student's own is fixed where something is compared with it: its states in L_interact
            and L_SC, and its question where rounds are compared as messages.
        noise: deviation of Gaussian noise on what the teacher hears.
        interact_weight: w_i.
        message_weight: w_m.
        state_weight: w_s.
        relative: whether squared differences of states are over the mean square of the state that is compared with.
        message: what messages are.
        warmup: steps in which not everybody trains.
        answers: what teaches the student's answers.
        optimiser: the student's optimiser.
        communicator_optimiser: that of encoders and decoders, whose weights are new.
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
        stop_gradient: bool = True,
        noise: float = 0.0,
        interact_weight: float = 0.1,
        message_weight: float = 1.0,
        state_weight: float = 1.0,
        relative: bool = True,
        message: Message = Message(),
        warmup: Warmup = Warmup(),
        answers: Answers = Answers(),
        optimiser: Optimiser = Optimiser(),
        communicator_optimiser: Optimiser = Optimiser(name="adam", lr=1e-3, lr_batch=None, weight_decay=0.0),
    ) -> None:
        check(rounds >= 0, "method.rounds", rounds, "at least 0")
        for name, value in (
            ("noise", noise),
            ("interact_weight", interact_weight),
            ("message_weight", message_weight),
            ("state_weight", state_weight),
        ):
            check(0 <= value < math.inf, f"method.{name}", value, "a number of at least 0")
        self.interacts = bool(rounds and interact_weight)
        if noise and not self.interacts:
            raise UserError(
                f"method.noise is {noise:g} and the teacher hears nothing: set method.rounds and method.interact_weight, or no "
                "noise"
            )
        own = _cut(student, student_low, student_high)
        paths = _cut(frozen["teacher1"].network, teacher_low, teacher_high) if "teacher1" in frozen else own
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
        said = {"low": message_weight or state_weight, "high": message_weight}
        self.teacher_says = [level for level in _LEVELS if said[level]]
        self.teacher_reads = [STATES + path for level, path in zip(_LEVELS, paths, strict=True) if said[level]]
        self.student_says = [level for level in _LEVELS if said[level] or (self.interacts and level == speak_from)]
        self.communicator_optimiser = communicator_optimiser
        together = [float(self.interacts), message_weight, state_weight]
        keys = "method.interact_weight (or rounds), .message_weight and .state_weight"
        require_loss(together if warmup.communicators else [*together, answers.labels, answers.kl], keys)
        if warmup.student:
            require_loss([answers.labels, answers.kl], "method.answers.labels and .kl")
        if warmup.communicators and "plateau" in (optimiser.schedule, communicator_optimiser.schedule):
            raise UserError("schedule plateau would end the run while the student waits: use constant or cosine")

    def fit_to(self, shapes: Sequence[tuple[int, ...]], numbers: Tensor) -> None:
        super().fit_to(shapes, numbers)
        (shape,) = shapes
        if self.interacts:
            self.student_part = Part(self.student, *self.paths["student"], shape)
            self.teacher_part = Part(self.teacher.network, *self.paths["teacher"], shape)

    def adapt(self, student: list[Layout], teacher: list[Layout]) -> None:
        common = min((*student, *teacher), key=lambda layout: layout.count)
        ours, theirs = dict(zip(_LEVELS, student, strict=True)), dict(zip(_LEVELS, teacher, strict=True))
        self.student_side = Communicator(ours, common, self.message)
        other = self.student_side if self.message.joint else None
        self.teacher_side = Communicator(theirs, common, self.message, other)

    def players(self) -> dict[str, Player]:
        sides = nn.ModuleList([self.student_side, self.teacher_side])
        return {
            "student": self.optimiser.player(self.student.parameters()),
            "communicators": self.communicator_optimiser.player(sides.parameters()),
        }

    def moving(self, clock: Clock) -> tuple[str, ...] | None:
        if self.warmup.student + self.warmup.communicators >= clock.total:
            raise UserError(
                f"method.warmup takes {self.warmup.student} and {self.warmup.communicators} steps, and the run has "
                f"{clock.total}: leave some in which both train"
            )
        if clock.step < self.warmup.student:
            return ("student",)
        return ("communicators",) if clock.step < self.warmup.student + self.warmup.communicators else None

    def forward(self, batch: Batch, clock: Clock) -> Step:
        moving = self.moving(clock)
        self.student.train(moving != ("communicators",))
        if moving == ("student",):
            return summed(self.taught(self.student(batch.x).logits, batch))
        if moving == ("communicators",):
            return summed(self.guidance(self.student(batch.x), batch, clock))
        return super().forward(batch, clock)

    def guide(
        self, student: list[Tensor], teacher: list[Tensor], batch: Batch, clock: Clock
    ) -> dict[str, tuple[float, Tensor]]:
        weights = self.weights
        ours, theirs = dict(zip(_LEVELS, student, strict=True)), dict(zip(self.teacher_says, teacher, strict=True))
        said = self.student_side.speak({level: ours[level] for level in self.student_says})
        told = self.teacher_side.speak(theirs)
        compared = {"student": said["low"], "teacher": told["low"]} if weights["states"] else {}
        question = {"question": said[self.speak_from]} if self.interacts else {}
        heard = self.teacher_side.hear(compared | question)
        losses = {}
        if self.interacts:
            losses["interact"] = (
                weights["interact"],
                self._interact(ours, **question, heard=heard["question"], clock=clock),
            )
        if weights["messages"]:
            errors = [mean_square(said[level], told[level]) for level in _LEVELS]
            losses["messages"] = weights["messages"], torch.stack(errors).sum()
        if weights["states"]:
            pairs = [(found, ours["low"]) for found in self.student_side.hear(compared).values()]
            pairs += [(heard[who], theirs["low"]) for who in compared]
            errors = [mean_square(found, self._compared(own), relative=self.relative) for found, own in pairs]
            losses["states"] = weights["states"], torch.stack(errors).sum()
        if said:
            losses["messages/spread"] = 0.0, torch.stack([_spread(message) for message in said.values()]).mean()
        return losses

    def _interact(self, ours: Mapping[Level, Tensor], question: Tensor, heard: Tensor, clock: Clock) -> Tensor:
        """The sum over rounds of what the student's state and what comes back of it differ by.

        Args:
            ours: the student's states.
            question: the message that it begins with.
            heard: what the teacher hears of that.
            clock: of this micro-batch.
        """
        errors = []
        for number in range(1, self.rounds + 1):
            if self.noise:
                with clock.stream(f"interactive/noise/{number}"):
                    heard = heard + self.noise * torch.randn_like(heard)
            answer = self.teacher_side.speak({"high": self._interpreted(heard)})["high"]
            back = self.student_side.hear({"answer": answer})["answer"].to(ours["low"].dtype)
            more = number < self.rounds
            made = self.student_part(back) if more or self.interact_on == "high" else back
            pairs = {"high": (made, ours["high"]), "low": (back, ours["low"]), "messages": (answer, question)}
            found, own = pairs[self.interact_on]
            relative = self.relative and self.interact_on != "messages"
            errors.append(mean_square(found, self._compared(own), relative=relative))
            if more:
                question = self.student_side.speak({"high": made})["high"]
                heard = self.teacher_side.hear({"question": question})["question"]
        return torch.stack(errors).sum()

    def _compared(self, own: Tensor) -> Tensor:
        """A state that something else is compared with."""
        return own.detach() if self.stop_gradient else own

    def _interpreted(self, heard: Tensor) -> Tensor:
        """What the teacher's high part makes of a low state, in the arithmetic of frozen networks."""
        with torch.autocast(heard.device.type, torch.bfloat16, enabled=self.teacher.mixed):
            return self.teacher_part(heard.float()).float()


@torch.no_grad()
def _spread(message: Tensor) -> Tensor:
    """Which share of the mean square of a message [B, tokens, width] is variance over samples: 0 where all are told alike."""
    message = message.float()
    return message.var(0, correction=0).mean() / message.square().mean().clamp(min=1e-12)


def _cut(network: Network, low: str | None, high: str | None) -> tuple[str, str]:
    """The layers behind the low and the high part, those that were named or those of a known family."""
    if low and high:
        return low, high
    first, last = ends(network)
    return low or first, high or last
