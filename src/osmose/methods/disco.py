"""Contrastive learning beside a frozen self-supervised network, whose embeddings are kept to (DisCo, arXiv 2104.09124)."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from osmose.data.batch import Batch
from osmose.data.crops import TwoCrops
from osmose.engine.clock import Clock
from osmose.engine.method import Method, Step
from osmose.engine.optimiser import Optimiser, Player
from osmose.errors import check
from osmose.methods.contrasted import Contrasted, unit
from osmose.methods.one_of_each import one_of_each
from osmose.models.backbones import Backbones
from osmose.signals import Frozen


class Disco(Method):
    """L = |z - t|^2 + |z' - t'|^2 + contrast_weight * L_co(z, k', queue), of two crops of each sample, all of length 1.

    z are embeddings of the student by a perceptron, t the teacher's features, k' the embedding of the other crop by a slow twin
    of the student, and L_co = -log softmax over k' and the twin's last embeddings of z . k / temperature at k' (MoCo, arXiv
    1911.05722).

    Args:
        student: the network that trains.
        frozen: "teacher1".
        queue: how many of the twin's last embeddings are contrasted with.
        hidden: units of the perceptron's hidden layer.
        temperature: of the contrast.
        momentum: share of the twin that stays in a step.
        contrast_weight: weight of L_co.
        optimiser: of student and perceptron.
    """

    trains = Backbones
    sees = TwoCrops
    summary = "self-supervised teachers: contrastive learning whose embeddings keep to the teacher's (DisCo)"
    source = "arXiv 2104.09124"

    def __init__(
        self,
        student: Backbones,
        frozen: Mapping[str, Frozen],
        *,
        queue: int = 65536,
        hidden: int = 2048,
        temperature: float = 0.2,
        momentum: float = 0.999,
        contrast_weight: float = 1.0,
        optimiser: Optimiser = Optimiser(lr=0.03, weight_decay=1e-4, schedule="cosine"),
    ) -> None:
        super().__init__()
        check(queue >= 1, "method.queue", queue, "at least 1")
        check(hidden >= 1, "method.hidden", hidden, "at least 1")
        check(temperature > 0, "method.temperature", temperature, "a number above 0")
        check(0 <= momentum <= 1, "method.momentum", momentum, "a share between 0 and 1")
        check(contrast_weight >= 0, "method.contrast_weight", contrast_weight, "at least 0")
        self.network, self.teacher = one_of_each("disco", student, frozen)
        self.student = student
        self.size, self.hidden, self.temperature = queue, hidden, temperature
        self.momentum, self.contrast_weight, self.optimiser = momentum, contrast_weight, optimiser

    def needs(self) -> frozenset[str]:
        return frozenset({"teacher"})

    def taught_by(self, teachers: Sequence[str]) -> str:
        return f"{' and '.join(teachers)} (embeddings) and other samples"

    def fit_to(self, shapes: Sequence[tuple[int, ...]], numbers: Tensor) -> None:
        assert self.teacher is not None, "asked for by `needs`"
        ours, theirs = (one.tried(shapes[0]).features.shape[1] for one in (self.network, self.teacher.network))
        self.learner = Contrasted(
            self.network,
            ours,
            hidden=self.hidden,
            width=theirs,
            queue=min(self.size, len(numbers)),
            momentum=self.momentum,
        )

    def players(self) -> dict[str, Player]:
        return {"student": self.optimiser.player(self.learner.trained())}

    def forward(self, batch: Batch, clock: Clock) -> Step:
        assert self.teacher is not None
        (crops, *_) = batch.crops
        ours = self.learner(crops.flatten(0, 1)).unflatten(0, (2, -1))
        with torch.no_grad():
            theirs = unit(self.teacher(crops.flatten(0, 1)).features).unflatten(0, (2, -1))
        keys = self.learner.key(crops[1])
        with torch.autocast(crops.device.type, enabled=False):
            kept = (ours - theirs).square().sum((0, 2)).mean()
            likeness = self.learner.queue.likeness(ours[0], keys, batch.index)
            own = torch.zeros(len(keys), dtype=torch.int64, device=crops.device)
            contrast = F.cross_entropy(likeness / self.temperature, own)
        self.learner.queue.see(batch.index, keys)
        parts = {"kept": kept.detach(), "contrast": contrast.detach()}
        return Step(kept + self.contrast_weight * contrast, parts)

    def after_step(self, clock: Clock) -> None:
        self.learner.follow()

    def products(self) -> dict[str, Backbones]:
        return {"student": self.student}
