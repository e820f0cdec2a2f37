"""Networks that learn by contrast side by side, each also among the others' embeddings (arXiv 2104.12565)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from osmose.data.batch import Batch
from osmose.data.crops import TwoCrops
from osmose.engine.clock import Clock
from osmose.engine.method import Method, Step
from osmose.engine.optimiser import Optimiser, Player
from osmose.errors import UserError, check
from osmose.losses import kl_divergence
from osmose.methods.contrasted import Contrasted
from osmose.methods.dino import CNN, TRANSFORMER
from osmose.methods.learner import looks
from osmose.models.backbones import Backbones
from osmose.random import stream
from osmose.signals import Frozen


class Mutual(Method):
    """L = hard_weight * sum over i, j of -log p_ij(own) + soft_weight * sum over i != j of S^2 (KL(q_jj, q_ii) + KL(q_ji, q_ij)).

    p_ij is the softmax, over the key of the sample's other crop by network j's slow twin and that twin's last keys, of their
    products with network i's embedding, over the temperature. With i = j it is MoCo's contrast (arXiv 1911.05722); between
    networks, interactive contrast; q_ij is the same softened once more, over S, and in the last two terms the first distribution
    is a constant.

    Args:
        student: two networks or more.
        frozen: not used.
        queue: how many of a twin's last keys are contrasted with.
        hidden: units of the hidden layer of each network's perceptron.
        width: numbers of an embedding.
        temperature: of the contrast.
        momentum: share of the twins that stays in a step.
        hard_weight: weight of the contrasts.
        soft_weight: weight of the divergences between networks.
        soft_temperature: S; 3 is the public code's.
        cnn_optimiser: of networks with feature maps.
        transformer_optimiser: of networks with tokens.
    """

    trains = Backbones
    sees = TwoCrops
    summary = "self-supervised: networks learn by contrast, each also among the others' embeddings (mutual contrastive learning)"
    source = "arXiv 2104.12565"

    def __init__(
        self,
        student: Backbones,
        frozen: Mapping[str, Frozen],
        *,
        queue: int = 65536,
        hidden: int = 2048,
        width: int = 128,
        temperature: float = 0.2,
        momentum: float = 0.999,
        hard_weight: float = 1.0,
        soft_weight: float = 1.0,
        soft_temperature: float = 3.0,
        cnn_optimiser: Optimiser = CNN,
        transformer_optimiser: Optimiser = TRANSFORMER,
    ) -> None:
        super().__init__()
        for key, value in (("queue", queue), ("hidden", hidden), ("width", width)):
            check(value >= 1, f"method.{key}", value, "at least 1")
        for key, number in (("temperature", temperature), ("soft_temperature", soft_temperature)):
            check(number > 0, f"method.{key}", number, "a number above 0")
        check(0 <= momentum <= 1, "method.momentum", momentum, "a share between 0 and 1")
        for key, weight in (("hard_weight", hard_weight), ("soft_weight", soft_weight)):
            check(weight >= 0, f"method.{key}", weight, "at least 0")
        if len(student.members) < 2:
            raise UserError("method mutual takes two students or more: --student fresh:zoo:resnet-s fresh:zoo:vit-s")
        self._networks = list(student.members.values())
        self.student = student
        self.queue, self.hidden, self.width = queue, hidden, width
        self.temperature, self.soft_temperature, self.momentum = temperature, soft_temperature, momentum
        self.hard_weight, self.soft_weight = hard_weight, soft_weight
        self.cnn_optimiser, self.transformer_optimiser = cnn_optimiser, transformer_optimiser
        self.learners: list[Contrasted] = []

    def taught_by(self, teachers: Sequence[str]) -> str:
        return "contrast with its own slow twin's embeddings and the other networks'"

    def fit_to(self, shapes: Sequence[tuple[int, ...]], numbers: Tensor) -> None:
        size = min(self.queue, len(numbers))
        self.optimisers: list[Optimiser] = []
        for number, network in enumerate(self._networks, start=1):
            look = looks(network, shapes)[0]
            self.optimisers.append(self.cnn_optimiser if look.is_map else self.transformer_optimiser)
            with stream(torch.initial_seed(), f"student{number}/contrast"):
                learner = Contrasted(
                    network, look.width, hidden=self.hidden, width=self.width, queue=size, momentum=self.momentum
                )
            self.add_module(f"student{number}", learner)
            self.learners.append(learner)

    def players(self) -> dict[str, Player]:
        pairs = enumerate(zip(self.learners, self.optimisers, strict=True), start=1)
        return {f"student{number}": optimiser.player(learner.trained()) for number, (learner, optimiser) in pairs}

    def forward(self, batch: Batch, clock: Clock) -> Step:
        (crops, *_) = batch.crops
        said = []
        for number, learner in enumerate(self.learners, start=1):
            with clock.stream(f"student{number}/forward"):
                said.append(learner(crops[0]))
        keys = [learner.key(crops[1]) for learner in self.learners]
        with torch.autocast(crops.device.type, enabled=False):
            scores = {
                (i, j): learner.queue.likeness(one, key, batch.index) / self.temperature
                for i, one in enumerate(said)
                for j, (learner, key) in enumerate(zip(self.learners, keys, strict=True))
            }
            own = -torch.stack([scores[i, i].log_softmax(1)[:, 0].mean() for i in range(len(said))])
            others = [(i, j) for i, j in scores if i != j]
            between = -torch.stack([scores[pair].log_softmax(1)[:, 0].mean() for pair in others])
            asked = [pair for i, j in others for pair in (((i, i), (j, j)), ((i, j), (j, i)))]
            soft = torch.stack(
                [
                    kl_divergence(scores[one], scores[other].detach(), temperature=self.soft_temperature)
                    for one, other in asked
                ]
            )
        for learner, key in zip(self.learners, keys, strict=True):
            learner.queue.see(batch.index, key)
        parts = {"contrast": own.mean(), "between": between.mean(), "divergence": soft.mean()}
        loss = self.hard_weight * (own.sum() + between.sum()) + self.soft_weight * soft.sum()
        return Step(loss, {name: value.detach() for name, value in parts.items()})

    def after_step(self, clock: Clock) -> None:
        for learner in self.learners:
            learner.follow()

    def products(self) -> dict[str, Backbones]:
        return {"student": self.student}
