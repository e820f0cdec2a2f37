"""HARD: a student is distilled on augmentations that are learned to make it disagree with its teacher (arXiv 2305.14890)."""

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import functional_call

from osmose.augmentors import Augmentor, make_augmentor
from osmose.augmentors.registry import Section
from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.engine.late import Late
from osmose.engine.method import Method, Step
from osmose.engine.optimiser import Group, Optimiser, Player
from osmose.errors import UserError, check
from osmose.figures.augmented import draw_augmented
from osmose.figures.phases import draw_phases
from osmose.figures.spread import draw_spread
from osmose.losses import kl_divergence, squared_error
from osmose.methods.panel import Panel
from osmose.models.network import Network
from osmose.processes import all_reduce, stop
from osmose.random import generator, stream
from osmose.signals import Frozen
from osmose.targets import FlipRule

TURN = "student_phase"
"""The logged share of steps that were the student's."""
_KEPT = ("phase", "crossings", "stayed", "switched", "pool", "saved_at")
_SHOWN = 5
"""Augmentors of the pool in the picture of augmented images."""


class Hard(Method):
    """Two phases take turns (eqs 1 to 3), with x~ = augmentor(x) and D the KL divergence, or the squared error in regression.

    The augmentor maximises lambda_s * D[student(x~), target(x~)] - lambda_t * D[teacher(x~), teacher(x)] until the student's
    error on x~ was above `l_max` for `consecutive` steps in a row; it is then saved into the pool. The student minimises
    D[student(x~), target(x~)], x~ from an augmentor drawn from the pool, until its error was below `l_min` as often.
    The augmentor `mix` trains in the student's own step instead, through a gradient reversal and without the second term.

    Args:
        student: the network that is distilled.
        frozen: "teacher1", ...; and "initial", the initial student.
        augmentor: name and settings of the augmentor, or a list of them that follow one another (`osmose show augmentors`).
        target: who teaches which sample of x~: a name, or who teaches positive, negative and neutral flips.
        temperature: T of the softened distributions.
        switch_on: what "error" means: against the true labels, or disagreement with the teacher on x~. A share of the batch in
            classification, a mean square in regression.
        l_min: the student has learned an augmentation when its error is below.
        l_max: the augmentor has found a hard one when the student's error is above.
        consecutive: steps in a row that it takes to switch.
        phase_limit: a phase ends after so many steps whatever the error; none waits for it, as in the paper.
        lambda_s: weight of the disagreement between student and target.
        lambda_t: weight of the teacher's invariance.
        pool_limit: augmentors that are kept; of more the oldest go.
        augmentor_batch: samples of a step in the augmentor's phase, at most the recipe's batch_size; none takes all.
        optimiser: the student's optimiser.
        augmentor_optimiser: the augmentor's optimiser.
    """

    watched: Tensor
    summary = "distillation on learned augmentations on which teacher and student disagree"
    source = "arXiv 2305.14890"

    def __init__(
        self,
        student: Network,
        frozen: Mapping[str, Frozen],
        *,
        augmentor: Section = "affine",
        target: str | FlipRule = "teacher",
        temperature: float = 5.0,
        switch_on: Literal["error", "disagreement"] = "error",
        l_min: float = 0.05,
        l_max: float = 0.4,
        consecutive: int = 5,
        phase_limit: int | None = None,
        lambda_s: float = 1.0,
        lambda_t: float = 1.0,
        pool_limit: int = 100,
        augmentor_batch: int | None = 128,
        optimiser: Optimiser = Optimiser(name="adam", lr=3e-4, weight_decay=2e-9, schedule="plateau", warmup_epochs=20),
        augmentor_optimiser: Optimiser = Optimiser(name="adam", lr=0.05, weight_decay=0.0),
    ) -> None:
        super().__init__()
        check(0 < temperature < math.inf, "method.temperature", temperature, "a number above 0")
        check(0 <= l_min < l_max, "method.l_min", l_min, f"at least 0 and below l_max, which is {l_max}")
        check(consecutive >= 1, "method.consecutive", consecutive, "at least 1")
        check(phase_limit is None or phase_limit >= 1, "method.phase_limit", phase_limit, "at least 1, or null")
        check(lambda_s > 0, "method.lambda_s", lambda_s, "a number above 0")
        check(lambda_t >= 0, "method.lambda_t", lambda_t, "at least 0")
        check(pool_limit >= 1, "method.pool_limit", pool_limit, "at least 1")
        check(
            augmentor_batch is None or augmentor_batch >= 1,
            "method.augmentor_batch",
            augmentor_batch,
            "at least 1, or null",
        )
        self.student = student
        self.augmentor = augmentor if isinstance(augmentor, Augmentor) else make_augmentor(augmentor)
        self.panel = Panel(target, frozen, regression=student.num_classes == 1)
        self.temperature, self.switch_on = temperature, switch_on
        self.l_min, self.l_max, self.consecutive, self.phase_limit = l_min, l_max, consecutive, phase_limit
        self.lambda_s, self.lambda_t = lambda_s, lambda_t
        self.pool_limit, self.augmentor_batch = pool_limit, augmentor_batch
        self.optimiser, self.augmentor_optimiser = optimiser, augmentor_optimiser
        if self.augmentor.joint and self.panel.target.labels:
            raise UserError(
                f"target '{target}' needs labels, which images blended by augmentor mix do not have: "
                "use target 'teacher' or 'partition-unsupervised'"
            )
        self.phase: Literal["augmentor", "student"] = "augmentor"
        self.crossings = self.stayed = 0
        self.switched = False
        self.pool: list[dict[str, Tensor]] = []
        self.saved_at: list[int] = []
        self.late = Late()
        self.register_buffer("watched", torch.zeros(4), persistent=False)

    def fit_to(self, shapes: Sequence[tuple[int, ...]], numbers: Tensor) -> None:
        self.augmentor.fit(*shapes)
        self.pool, self.saved_at = [self._snapshot()], [0]

    def reads(self) -> dict[str, tuple[str, ...]]:
        return {} if self.augmentor.joint else dict.fromkeys(self.panel.speaker_roles, ("logits",))

    def needs(self) -> frozenset[str]:
        needs = self.panel.needs() | {"images"}
        if not self.panel.regression:
            needs |= {"same classes"}
        if self.switch_on == "error" and not self.augmentor.joint:
            needs |= {"labels", "whole labels"}
        return frozenset(needs)

    def taught_by(self, teachers: Sequence[str]) -> str:
        return f"{self.panel.who(teachers)} on learned augmentations"

    def players(self) -> dict[str, Player]:
        settings = self.augmentor_optimiser
        augmentor = settings.player(self.augmentor.learned().values())
        augmentor.groups = [
            Group(group.parameters, partial(_scaled, settings.rate, rate), group.weight_decay)
            for some, rate in self.augmentor.rates()
            if any(one.requires_grad for one in some)
            for group in settings.player(some).groups
        ]
        return {"student": self.optimiser.player(self.student.parameters()), "augmentor": augmentor}

    def moving(self, clock: Clock) -> tuple[str, ...] | None:
        return None if self.augmentor.joint else (self.phase,)

    def forward(self, batch: Batch, clock: Clock) -> Step:
        if self.augmentor.joint:
            return self._joint_step(batch, clock)
        return self._augmentor_step(batch, clock) if self.phase == "augmentor" else self._student_step(batch, clock)

    def _augmentor_step(self, batch: Batch, clock: Clock) -> Step:
        """lambda_t * D[teacher(x~), teacher(x)] - lambda_s * D[student(x~), target(x~)], minimised by the augmentor (eq 3)."""
        batch = batch.rows(slice(self._rows(len(batch.x), clock)))
        self.student.eval()
        with self._noise(clock):
            augmented = self.augmentor(batch.x)
        disagreement, error = self._disagree(augmented, batch.y)
        invariance = torch.stack([
            self._distance(network(augmented).logits, network.signal(batch)) for network in self.panel.speakers()
        ]).mean()  # fmt: skip
        self._watch(error, batch.x, augmented)
        loss = self.lambda_t * invariance - self.lambda_s * disagreement
        parts = {"invariance": invariance.detach(), "disagreement": disagreement.detach(), "error": error}
        return Step(loss, {**parts, TURN: torch.zeros_like(error)})

    def _student_step(self, batch: Batch, clock: Clock) -> Step:
        """D[student(x~), target(x~)], with x~ from an augmentor of the pool."""
        self.student.train()
        with self._noise(clock), torch.no_grad():
            augmented = functional_call(self.augmentor, self.pool[self._drawn(clock)], (batch.x,))
        disagreement, error = self._disagree(augmented, batch.y)
        self._watch(error, batch.x, augmented)
        return Step(disagreement, {"kl": disagreement.detach(), "error": error, TURN: torch.ones_like(error)})

    def _joint_step(self, batch: Batch, clock: Clock) -> Step:
        """D[student(x~), target(x~)], which the student minimises and, behind a reversed gradient, the augmentor maximises."""
        with self._noise(clock):
            augmented = self.augmentor(batch.x)
        disagreement, _ = self._disagree(_Reverse.apply(augmented, self.lambda_s), None)
        return Step(disagreement, {"kl": disagreement.detach()})

    def _drawn(self, clock: Clock) -> int:
        """Which augmentor of the pool this step uses: each as likely, and the same one in every shard."""
        return int(torch.randint(len(self.pool), (), generator=generator(clock.seed, "hard/pool", clock.step)))

    @contextmanager
    def _noise(self, clock: Clock) -> Iterator[None]:
        """Random numbers of the augmentor's own stream; float32, whatever the networks have."""
        with clock.stream("hard/noise"), torch.autocast(self.watched.device.type, enabled=False):
            yield

    def _disagree(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """D between the student and whoever teaches each sample of x, and the student's error there, detached."""
        student = self.student(x).logits.float()
        choice = self.panel.choose(student, y, lambda network: network(x).logits)
        disagreement = self._distance(student, choice.logits, keep=self.panel.kept(choice))
        with torch.no_grad():
            truth = y if self.switch_on == "error" else None
            if self.panel.regression:
                error = squared_error(student, choice.logits if truth is None else truth)
            else:
                wanted = choice.logits.argmax(-1) if truth is None else truth
                error = (student.argmax(-1) != wanted).float().mean()
        return disagreement, error

    def _distance(self, student: Tensor, teacher: Tensor, *, keep: Tensor | None = None) -> Tensor:
        divergence = squared_error if self.panel.regression else kl_divergence
        return divergence(student, teacher, temperature=self.temperature, keep=keep)

    def _rows(self, count: int, clock: Clock) -> int:
        """How many of a shard's `count` samples the augmentor trains on."""
        if self.augmentor_batch is None:
            return count
        return max(1, min(count, count * self.augmentor_batch // clock.batch_size))

    @torch.no_grad()
    def _watch(self, error: Tensor, x: Tensor, augmented: Tensor) -> None:
        """Add up what `after_step` looks at: micro-batches, the error, and how much x~ and x differ between samples."""
        spread = [images.float().flatten(1).var(0, unbiased=False).mean() for images in (augmented, x)]
        self.watched += torch.stack([torch.ones_like(error), error, *spread])

    def after_step(self, clock: Clock) -> None:
        if self.augmentor.joint:
            return
        before = self.late.swap(all_reduce(self.watched, "sum"))
        self.watched.zero_()
        if before is None:
            return
        count, error, augmented, plain = before
        if not math.isfinite(augmented) or augmented < 1e-8 * plain:  # one sample a micro-batch tells nothing
            raise stop(
                f"the augmentor collapsed at step {clock.step}: its outputs are "
                f"{'the same for all inputs' if augmented == augmented else 'no longer finite'}; lower "
                "method.augmentor_optimiser.lr or raise method.lambda_t"
            )
        if self.switched:  # what was held is still the other phase's
            self.switched = False
        else:
            self._switch(error / count, clock.step)

    def _switch(self, error: float, step: int) -> None:
        """Count one more step beyond the threshold, or none; change the phase when there are enough in a row."""
        beyond = error > self.l_max if self.phase == "augmentor" else error < self.l_min
        self.crossings = self.crossings + 1 if beyond else 0
        self.stayed += 1
        if self.crossings < self.consecutive and not (self.phase_limit and self.stayed >= self.phase_limit):
            return
        self.crossings = self.stayed = 0
        self.switched = True
        if self.phase == "augmentor":
            self.pool = [*self.pool, self._snapshot()][-self.pool_limit :]
            self.saved_at = [*self.saved_at, step + 1][-self.pool_limit :]
        self.phase = "student" if self.phase == "augmentor" else "augmentor"

    def _snapshot(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.augmentor.learned().items()}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """The pool, which is neither parameters nor buffers, goes where the module goes."""
        self.pool = [{name: fn(value) for name, value in kept.items()} for kept in self.pool]
        return super()._apply(fn, recurse)

    def get_extra_state(self) -> dict[str, Any]:
        """Phase, counters, pool and the number still to be looked at."""
        kept = {name: getattr(self, name) for name in _KEPT}
        return {**kept, "late": self.late.read()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_extra_state` gave."""
        device = self.watched.device
        for name in _KEPT:
            setattr(self, name, state[name])
        self.pool = [{name: value.to(device) for name, value in kept.items()} for kept in state["pool"]]
        self.late.restore(state["late"])

    @torch.no_grad()
    def draw(self, folder: Path, batch: Batch) -> None:
        with stream(0, "hard/draw"):
            if batch.x.shape[1] in (1, 3) and min(batch.x.shape[2:]) > 1:
                draw_augmented(folder / "augmented.png", batch.x, self._shown(batch.x))
            if self.augmentor.joint:
                return
            quantities: dict[str, list[Tensor]] = {}
            for state in self.pool:
                loaded = copy.deepcopy(self.augmentor)
                loaded.load_state_dict(state, strict=False)
                for name, draws in loaded.quantities(500).items():
                    quantities.setdefault(name, []).append(draws.cpu())
        if quantities:
            draw_spread(folder / "augmentor.svg", self.saved_at, quantities)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        losses = {
            "kl": "student on the pool",
            "disagreement": "student on the augmentor",
            "invariance": "teacher's change",
        }
        draw_phases(folder / "phases.svg", lines, losses, TURN)

    def _shown(self, x: Tensor) -> dict[str, Tensor]:
        """What some of the pool's augmentors, evenly spread over the run, and the last one make of x."""
        stages = {} if self.augmentor.joint else dict(zip(self.saved_at, self.pool, strict=True))
        some = sorted(
            {list(stages)[place * (len(stages) - 1) // (_SHOWN - 1)] for place in range(_SHOWN)} if stages else ()
        )
        shown = {f"step {step}": functional_call(self.augmentor, stages[step], (x,)) for step in some}
        return {**shown, "last": self.augmentor(x)}

    def products(self) -> dict[str, Network | Augmentor]:
        return {"student": self.student, "augmentor": self.augmentor}


class _Reverse(torch.autograd.Function):
    """The identity, whose gradient is turned round and scaled."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * gradient, None


def _scaled(schedule: Callable[[Clock], float], factor: float, clock: Clock) -> float:
    return factor * schedule(clock)
