"""Attention transfer: where the student's activations are large is to be where the teacher's are (arXiv 1612.03928)."""

import math
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.engine.optimiser import Optimiser
from osmose.errors import UserError, check
from osmose.methods.guided import Answers, Guided, require_loss
from osmose.models.chain import ends
from osmose.models.layout import Layout
from osmose.models.network import STATES, Network
from osmose.signals import Frozen


class Attention(Guided):
    """L = answers + weight / 2 * sum over pairs of layers of the mean of (q_s - q_t)^2 (eq 2, squared as in its code).

    q is the sum of squares over channels at each place, divided by its norm over places. Maps of another grid are averaged or
    interpolated to the smaller one.

    Args:
        student: the network that trains.
        frozen: "teacher1"; and "initial", the initial student.
        student_layers: the student's layers, by their paths in the module; none takes the first and the last of a known family.
        teacher_layers: the teacher's, as many.
        weight: beta of eq 2 times places and batch, 1,000 in the paper.
        answers: what teaches the student's answers.
        optimiser: the student's optimiser.
    """

    summary = "attention: activations are to be large where the teacher's are"
    source = "arXiv 1612.03928"
    source_of_states = "attention"

    def __init__(
        self,
        student: Network,
        frozen: Mapping[str, Frozen],
        *,
        student_layers: list[str] | None = None,
        teacher_layers: list[str] | None = None,
        weight: float = 1000.0,
        answers: Answers = Answers(),
        optimiser: Optimiser = Optimiser(),
    ) -> None:
        check(0 <= weight < math.inf, "method.weight", weight, "a number of at least 0")
        ours = student_layers or list(ends(student))
        theirs = (teacher_layers or list(ends(frozen["teacher1"].network))) if "teacher1" in frozen else ours
        if len(ours) != len(theirs):
            raise UserError(
                f"method.student_layers names {len(ours)} layers and method.teacher_layers {len(theirs)}: name as many"
            )
        super().__init__(
            student,
            frozen,
            answers=answers,
            student_fields=[STATES + path for path in ours],
            teacher_fields=[STATES + path for path in theirs],
            optimiser=optimiser,
        )
        self.weight = weight
        require_loss([weight, answers.labels, answers.kl], "method.weight, method.answers.labels and .kl")

    def adapt(self, student: list[Layout], teacher: list[Layout]) -> None:
        for network, layouts in ((self.student, student), (self.teacher.network, teacher)):
            if any(layout.count == 1 for layout in layouts):
                raise UserError(
                    f"layers of '{network.name}' give one place, where no attention can be: use method feature"
                )
        self.layouts = list(zip(student, teacher, strict=True))
        for ours, theirs in self.layouts:
            if ours.count != theirs.count and not (ours.grid and theirs.grid):
                raise UserError(
                    f"layers give {ours.count} and {theirs.count} tokens that are not places of a grid, whose "
                    "attention cannot be compared: name layers that give as many, or feature maps"
                )

    def guide(
        self, student: list[Tensor], teacher: list[Tensor], batch: Batch, clock: Clock
    ) -> dict[str, tuple[float, Tensor]]:
        pairs = zip(self.layouts, student, teacher, strict=True)
        losses = [(attention(a, ours, b) - attention(b, theirs, a)).square().mean() for (a, b), ours, theirs in pairs]
        return {"attention": (self.weight / 2, sum(losses[1:], start=losses[0]))}


def attention(layout: Layout, state: Tensor, other: Layout) -> Tensor:
    """Of a state [B, ...] the attention [B, places], on the grid of the smaller of two layouts, of norm 1.

    Args:
        layout: of the state; where both layouts are places of a grid, tokens in front of it are left out.
        state: what a layer gave.
        other: the layout that it is compared with.
    """
    squares = layout.tokens(state).float().square().mean(-1, keepdim=True)
    if layout.grid and other.grid:
        squares, layout, other = squares[:, layout.front :], layout.places(), other.places()
    if (layout.count, layout.grid or (0, 0)) > (other.count, other.grid or (0, 0)):
        squares = layout.spread(squares, other)
    return F.normalize(squares.squeeze(-1), dim=-1)
