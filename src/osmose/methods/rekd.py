"""Contrast among a self-supervised teacher's nearest samples, which are the positives (after ReKD, arXiv 2112.04174)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from osmose.engine.optimiser import Optimiser
from osmose.errors import check
from osmose.methods.seed import Seed
from osmose.models.backbones import Backbones
from osmose.signals import Frozen


class Rekd(Seed):
    """L = -log of the share of exp(z_S . d / T) that falls to the teacher's nearest, d over this sample and the last ones.

    d are the teacher's unit features, z_S a perceptron's of the student's. Nearest are the sample itself and the others whose
    features the teacher's are most like.

    Args:
        student: the network that trains.
        frozen: "teacher1".
        positives: how many others are positives beside the sample itself.
        queue: how many of the last samples are compared with.
        hidden: units of the perceptron's hidden layer; none takes as many as the student has features.
        temperature: T.
        optimiser: of student and perceptron.
    """

    summary = "self-supervised teachers: contrast whose positives are the samples that the teacher finds nearest (ReKD)"
    source = "arXiv 2112.04174"

    def __init__(
        self,
        student: Backbones,
        frozen: Mapping[str, Frozen],
        *,
        positives: int = 5,
        queue: int = 65536,
        hidden: int | None = None,
        temperature: float = 0.1,
        optimiser: Optimiser = Optimiser(lr=0.03, weight_decay=1e-4, schedule="cosine"),
    ) -> None:
        check(temperature > 0, "method.temperature", temperature, "a number above 0")
        super().__init__(
            student, frozen, queue=queue, hidden=hidden, student_temperature=temperature, optimiser=optimiser
        )
        check(0 <= positives < queue, "method.positives", positives, "at least 0 and below method.queue")
        self.positives = positives

    def fit_to(self, shapes: Sequence[tuple[int, ...]], numbers: Tensor) -> None:
        super().fit_to(shapes, numbers)
        size = len(self.queue.rows)
        check(
            self.positives < size,
            "method.positives",
            self.positives,
            f"below the number of samples compared with, {size}",
        )

    def taught_by(self, teachers: Sequence[str]) -> str:
        return f"{' and '.join(teachers)} (nearest samples)"

    def compare(self, scores: Tensor, theirs: Tensor) -> Tensor:
        scores = scores / self.temperatures["student"]
        others = theirs[:, 1:].topk(self.positives).indices + 1  # behind the sample itself
        nearest = torch.cat([others.new_zeros(len(others), 1), others], 1)
        return (scores.logsumexp(1) - scores.gather(1, nearest).logsumexp(1)).mean()
