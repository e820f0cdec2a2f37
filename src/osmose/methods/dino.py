"""Self-distillation without labels: a network learns to answer each view as its slow twin answers the others (DINO)."""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from osmose.data.batch import Batch
from osmose.data.crops import Crops
from osmose.engine.clock import Clock
from osmose.engine.late import Late
from osmose.engine.method import Method, Step
from osmose.engine.optimiser import Optimiser, Player, cosine
from osmose.errors import check
from osmose.losses import view_pairs
from osmose.methods.heads import MLPHead, MLPOutputs, TOutputs
from osmose.methods.learner import WATCHED, Branch, Learner, Look, Said, looks
from osmose.models.backbones import Backbones
from osmose.models.network import Network
from osmose.processes import stop
from osmose.random import stream
from osmose.signals import Frozen

CNN = Optimiser(
    name="sgd", lr=0.1, weight_decay=1e-4, decay_vectors=False, clip_each=3.0, schedule="cosine", warmup_epochs=10,
    final=0.048,
)  # fmt: skip
TRANSFORMER = Optimiser(
    name="adamw", lr=3e-4, weight_decay=0.04, final_weight_decay=0.4, decay_vectors=False, clip_each=3.0,
    schedule="cosine", warmup_epochs=10, final=1 / 30,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """The temperature of what a twin teaches: it rises linearly, and then stays.

    Args:
        start: at the first step.
        end: after the rise.
        warmup_epochs: how long it rises.
        cnn_warmup_epochs: the same of what networks with feature maps teach themselves.
    """

    start: float = 0.04
    end: float = 0.07
    warmup_epochs: float = 30.0
    cnn_warmup_epochs: float = 50.0

    def __post_init__(self) -> None:
        for key in ("start", "end"):
            check(getattr(self, key) > 0, f"method.teacher_temperature.{key}", getattr(self, key), "a number above 0")
        for key in ("warmup_epochs", "cnn_warmup_epochs"):
            check(getattr(self, key) >= 0, f"method.teacher_temperature.{key}", getattr(self, key), "at least 0")

    def at(self, clock: Clock, *, cnn: bool) -> float:
        """The temperature at `clock`."""
        steps = (self.cnn_warmup_epochs if cnn else self.warmup_epochs) * clock.steps_per_epoch
        return self.start + (self.end - self.start) * min(1.0, clock.step / steps if steps else 1.0)


class Dino(Method):
    """L = mean over pairs of crops g != v of H(softmax((m'_g - centre) / T'), softmax(m_v / T)), g global and of the twin.

    Several students learn side by side, each by itself.

    Args:
        student: the networks.
        frozen: not used.
        outputs: K, scores of a head.
        mlp_head: the head behind features.
        student_temperature: T.
        teacher_temperature: T'.
        momentum: share of the twin that stays in a step, at the start; it goes to 1 on a cosine.
        centre_momentum: share of the centre that stays in a step.
        still_epochs: epochs at the start in which the heads' last layers do not train.
        cnn_optimiser: of networks with feature maps.
        transformer_optimiser: of networks with tokens.
    """

    trains = Backbones
    sees = Crops
    summary = "self-supervised: a network answers each view as its slow twin answers the others (DINO)"
    source = "arXiv 2104.14294"

    def __init__(
        self,
        student: Backbones,
        frozen: Mapping[str, Frozen],
        *,
        outputs: int = 65536,
        mlp_head: MLPHead = MLPHead(),
        student_temperature: float = 0.1,
        teacher_temperature: Temperature = Temperature(),
        momentum: float = 0.996,
        centre_momentum: float = 0.9,
        still_epochs: int = 1,
        cnn_optimiser: Optimiser = CNN,
        transformer_optimiser: Optimiser = TRANSFORMER,
    ) -> None:
        super().__init__()
        check(outputs >= 2, "method.outputs", outputs, "at least 2")
        check(student_temperature > 0, "method.student_temperature", student_temperature, "a number above 0")
        check(0 <= momentum <= 1, "method.momentum", momentum, "a share between 0 and 1")
        check(0 <= centre_momentum < 1, "method.centre_momentum", centre_momentum, "a share from 0 to below 1")
        check(still_epochs >= 0, "method.still_epochs", still_epochs, "at least 0")
        self.outputs, self.mlp_head = outputs, mlp_head
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.momentum, self.centre_momentum, self.still_epochs = momentum, centre_momentum, still_epochs
        self.cnn_optimiser, self.transformer_optimiser = cnn_optimiser, transformer_optimiser
        self._networks = list(student.members.values())
        self.learners: list[Learner] = []
        self.late = Late()
        self.told: list[list[float]] = []
        self.best = [0.0] * len(self._networks) * len(WATCHED)

    def taught_by(self, teachers: Sequence[str]) -> str:
        return "its own slow twin"

    def fit_to(self, shapes: Sequence[tuple[int, ...]], numbers: Tensor) -> None:
        seen = [looks(network, shapes) for network in self._networks]
        self.sizes = [size for _, *size in shapes]
        self.maps = [first.is_map for first, *_ in seen]
        called = [network.name for network in self._networks]
        for number, network in enumerate(self._networks):
            name = f"{called[number]}#{called[:number].count(called[number])}"
            with stream(torch.initial_seed(), f"{name}/heads"):
                mlp_head = MLPOutputs(self.mlp_head, seen[number][0].width, self.outputs, fixed=self.maps[number])
                t_head = self.token_head(number, seen)
            learner = Learner(Branch(network, mlp_head, t_head, seen[number]), self.outputs, name)
            self.add_module(f"student{number + 1}", learner)
            self.learners.append(learner)

    def notes(self) -> Sequence[str]:
        return [
            f"{learner.branch.network.name} does not take local crops of {'x'.join(map(str, size))} as they are: "
            f"they are enlarged to {'x'.join(map(str, look.size))}, and cost as much as global ones; "
            + _cure(learner.branch.network, look)
            for learner in self.learners
            for look, size in zip(learner.branch.looks, self.sizes, strict=True)
            if look.enlarged
        ] + [
            f"local crops of {'x'.join(map(str, size))} have more pixels than global ones of "
            f"{'x'.join(map(str, self.sizes[0]))}: lower view.local_size"
            for size in self.sizes[1:]
            if math.prod(size) > math.prod(self.sizes[0])
        ]

    def token_head(self, number: int, seen: Sequence[Sequence[Look]]) -> TOutputs | None:
        """The T-Head of a network, given how all look at crops of each size; None for none."""
        return None

    def players(self) -> dict[str, Player]:
        players: dict[str, Player] = {}
        for number, learner in enumerate(self.learners, start=1):
            for name, modules, optimiser in self.trained(number - 1, learner.branch):
                last = [
                    p for head in modules if isinstance(head, MLPOutputs | TOutputs) for p in head.last.parameters()
                ]
                ending = set(last)
                before = [p for module in modules for p in module.parameters() if p not in ending]
                players |= {
                    f"{name}{number}": optimiser.player(before),
                    f"{name}{number}/last": optimiser.player(last),
                }
        self._players = list(players)
        return players

    def trained(self, number: int, branch: Branch) -> list[tuple[str, list[nn.Module], Optimiser]]:
        """The players of a network: a name, modules and an optimiser each."""
        optimiser = self.cnn_optimiser if self.maps[number] else self.transformer_optimiser
        return [("student", [branch.network, branch.mlp_head], optimiser)]

    def moving(self, clock: Clock) -> Collection[str] | None:
        if clock.epoch >= self.still_epochs:
            return None
        return [name for name in self._players if not name.endswith("/last")]

    def forward(self, batch: Batch, clock: Clock) -> Step:
        said, heard = [], []
        for learner in self.learners:
            with clock.stream(f"{learner.name}/forward"):
                said.append(learner.branch(batch.crops))
            with torch.no_grad():
                heard.append(learner.twin(batch.crops[:1]))
            learner.gather("mlp", heard[-1].mlp)
            if heard[-1].tokens is not None:
                learner.gather("tokens", heard[-1].tokens)
        losses: list[Tensor] = []
        parts: dict[str, Tensor] = {}
        for number, learner in enumerate(self.learners):
            own = self.own_targets(number, heard[number], clock)
            found = self.losses(number, own, said, heard, clock)
            losses += [weight * loss for weight, loss in found.values()]
            told = {name: loss.detach() for name, (_, loss) in found.items()} | learner.count(own)
            parts |= {f"{name}{number + 1}": value for name, value in told.items()}
        return Step(torch.stack(losses).sum(), parts)

    def losses(
        self, number: int, own: Mapping[str, Tensor], said: Sequence[Said], heard: Sequence[Said], clock: Clock
    ) -> dict[str, tuple[float, Tensor]]:
        """By name the weight and the value of each loss of a network.

        Args:
            number: the network's.
            own: what its own twin teaches it through "mlp", its MLP-Head, and "tokens", its T-Head where it has one, [G, B, K].
            said: what all networks say.
            heard: what all twins say.
            clock: of this micro-batch.
        """
        (loss,) = view_pairs(said[number].mlp, [own["mlp"]], temperature=self.student_temperature)
        return {"self": (1.0, loss)}

    def own_targets(self, number: int, heard: Said, clock: Clock) -> dict[str, Tensor]:
        """What a network's own twin teaches it through each of its heads, [G, B, K], by what the twin says."""
        temperature = self.teacher_temperature.at(clock, cnn=self.maps[number])
        raw = {"mlp": heard.mlp} | ({} if heard.tokens is None else {"tokens": heard.tokens})
        return {head: self.learners[number].target(head, scores, temperature) for head, scores in raw.items()}

    def after_step(self, clock: Clock) -> None:
        momentum = cosine(clock.step / clock.total, self.momentum, 1.0)
        told = torch.cat([learner.follow(momentum, self.centre_momentum) for learner in self.learners])
        before = self.late.swap(told)
        if before is not None:
            self.told.append(before)
        if (clock.step + 1) % clock.steps_per_epoch == 0:
            self._require_answers(clock)

    def _require_answers(self, clock: Clock) -> None:
        """Collapse ends the run: an epoch in which a twin's answers told nothing any more, or the last of several in which they
        never did."""
        told, self.told = self.told, []
        for place, (number, head) in enumerate(itertools.product(range(len(self.learners)), WATCHED)):
            branch = self.learners[number].branch
            module = branch.mlp_head if head == "mlp" else branch.t_head
            if module is None:
                continue
            who = branch.network.name if head == "mlp" else f"the T-Head of {branch.network.name}"
            mean = sum(each[place] for each in told) / max(1, len(told))
            (optimiser,) = (one for _, modules, one in self.trained(number, branch) if module in modules)
            never = self.best[place] < _NOTHING and clock.epoch + 1 >= optimiser.warmup_epochs + _PATIENCE
            alike = f"in epoch {clock.epoch + 1} its twin answered all samples alike ({mean:.1e} nats)"
            if self.best[place] >= _NOTHING and mean < min(_NOTHING, 0.1 * self.best[place]):
                raise stop(
                    f"{who} collapsed: {alike}; lower {self.unsteady(number)} or the learning rate, or raise method.momentum"
                )
            if mean < _NOTHING and never:
                raise stop(
                    f"{who} learned nothing: {alike}, as in all before; lower method.teacher_temperature or method.momentum, or "
                    "raise the learning rate"
                )
            self.best[place] = max(mean, self.best[place])

    def unsteady(self, number: int) -> str:
        """The settings by which a network collapses less when they are lowered."""
        return "method.teacher_temperature"

    def get_extra_state(self) -> dict[str, Any]:
        """What `after_step` still looks at."""
        return {"told": self.told, "best": self.best, "late": self.late.read()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_extra_state` gave."""
        self.told = [list(each) for each in state["told"]]
        self.best = list(state["best"])
        self.late.restore(state["late"])

    def products(self) -> dict[str, Backbones]:
        return {"student": Backbones([learner.twin.network for learner in self.learners])}


def _cure(network: Network, look: Look) -> str:
    """What spares enlarging local crops."""
    if look.nearest:
        return f"it takes those of view.local_size {look.nearest}"
    if hasattr(network.body, "dynamic_img_size"):
        return "timm's transformers take smaller ones with dynamic_img_size=true"
    return "another network may take any size, as CNNs do"


_NOTHING = 1e-4
"""Nats; below this answers tell nothing of samples."""
_PATIENCE = 5
"""Epochs after the warm-up in which answers may tell nothing from the start."""
