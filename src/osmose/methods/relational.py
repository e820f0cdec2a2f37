"""Relational distillation: distances and angles between samples are to be those of the teacher (RKD, arXiv 1904.05068)."""

import math
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.engine.optimiser import Optimiser
from osmose.errors import check
from osmose.losses.relations import angles, distances
from osmose.methods.guided import Answers, Guided, require_loss
from osmose.models.network import Network
from osmose.signals import Frozen


class Relational(Guided):
    """L = answers + distance_weight * L_D + angle_weight * L_A, between the features of a micro-batch's samples.

    L_D is the mean Huber loss between distances of pairs, each over their mean (eqs 4 to 6); L_A that between cosines of the
    angles of triplets (eqs 7 to 9).

    Args:
        student: the network that trains.
        frozen: "teacher1"; and "initial", the initial student.
        distance_weight: of distances.
        angle_weight: of angles.
        answers: what teaches the student's answers.
        optimiser: the student's optimiser.
    """

    summary = "relations: distances and angles between samples are to be the teacher's"
    source = "arXiv 1904.05068"
    source_of_states = "relations"

    def __init__(
        self,
        student: Network,
        frozen: Mapping[str, Frozen],
        *,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        answers: Answers = Answers(),
        optimiser: Optimiser = Optimiser(),
    ) -> None:
        for name, weight in (("distance_weight", distance_weight), ("angle_weight", angle_weight)):
            check(0 <= weight < math.inf, f"method.{name}", weight, "a number of at least 0")
        super().__init__(
            student,
            frozen,
            answers=answers,
            student_fields=["features"],
            teacher_fields=["features"],
            optimiser=optimiser,
        )
        self.distance_weight, self.angle_weight = distance_weight, angle_weight
        weights = [distance_weight, angle_weight, answers.labels, answers.kl]
        require_loss(weights, "method.distance_weight, .angle_weight, .answers.labels and .answers.kl")

    def guide(
        self, student: list[Tensor], teacher: list[Tensor], batch: Batch, clock: Clock
    ) -> dict[str, tuple[float, Tensor]]:
        (ours,), (theirs,) = student, teacher
        losses = {}
        if self.distance_weight:
            losses["distance"] = (self.distance_weight, F.smooth_l1_loss(distances(ours), distances(theirs)))
        if self.angle_weight:
            losses["angle"] = (self.angle_weight, F.smooth_l1_loss(angles(ours), angles(theirs)))
        return losses
