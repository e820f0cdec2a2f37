"""A player's optimiser and the schedules of its learning rate, as functions of the clock."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Literal

import torch
from torch import nn

from osmose import torchvision_ops
from osmose.engine.clock import Clock
from osmose.errors import UserError, check, missing_extra

Scheduled = float | Callable[[Clock], float]
"""A number, or a pure function of the clock that gives it."""


_ELSEWHERE = {
    "lion": ("timm.optim", "Lion", "vision"),
    "lion-8bit": ("bitsandbytes.optim", "Lion8bit", "eight-bit"),
    "adamw-8bit": ("bitsandbytes.optim", "AdamW8bit", "eight-bit"),
}
"""Optimisers that torch does not have: package, class and the extra that brings it."""


@dataclass
class Group:
    """Parameters that share a learning rate and a weight decay.

    Attributes:
        parameters: what is trained.
        lr: learning rate of an optimiser step (already scaled to the batch size).
        weight_decay: the optimiser's weight decay.
    """

    parameters: list[nn.Parameter]
    lr: Scheduled
    weight_decay: Scheduled = 0.0


@dataclass
class Player:
    """A set of trainable parameters with an optimiser of its own.

    Attributes:
        groups: the parameters, each group with its own schedules.
        optimiser: builds the optimiser from torch's list of parameter groups.
        clip: largest norm of the player's whole gradient; None leaves gradients as they are.
        clip_each: largest norm of each tensor's gradient.
        plateau: reaction to a held-out metric that no longer improves; None for none.
        warmup_epochs: over which the rate rises.
    """

    groups: list[Group]
    optimiser: Callable[[list[dict[str, object]]], torch.optim.Optimizer]
    clip: float | None = None
    clip_each: float | None = None
    plateau: "Plateau | None" = None
    warmup_epochs: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """Settings of the schedule "plateau": lower the rate and restore the best weights when the held-out metric stands still.

    Args:
        patience: epochs without gain before a reduction.
        factor: what the learning rate is multiplied with at a reduction.
        reductions: the run ends at this many reductions.
    """

    patience: int = 20
    factor: float = 0.8
    reductions: int = 5

    def __post_init__(self) -> None:
        check(self.patience >= 1, "plateau.patience", self.patience, "at least 1")
        check(0 < self.factor < 1, "plateau.factor", self.factor, "a number between 0 and 1")
        check(self.reductions >= 1, "plateau.reductions", self.reductions, "at least 1")


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """Settings of one player's optimiser; the learning rate follows the rule lr x global batch / `lr_batch` (arXiv 2310.17653).

    Args:
        name: which optimiser; lion (arXiv 2302.06675) needs the extra 'vision', those with 8 bits of state the extra 'eight-bit'.
        lr: learning rate for a global batch of `lr_batch` samples.
        lr_batch: the batch that the rate is meant for; none takes the rate as it is for any.
        momentum: SGD's momentum, without Nesterov's correction; the other optimisers do not use it.
        weight_decay: weight decay (L2 for sgd and adam, decoupled for the others).
        final_weight_decay: where a cosine over the run takes it; none leaves it as it is.
        decay_vectors: whether parameters of one dimension, as biases and those of normalisation, decay too.
        clip: largest norm of the gradient; none leaves it as it is.
        clip_each: largest norm of each tensor's gradient.
        schedule: how the rate goes on after the warm-up: constant, cosine to `final`, or plateau.
        warmup_epochs: epochs over which the rate rises linearly from zero.
        final: share of `lr` at the end of a cosine.
        plateau: settings of the schedule plateau.
    """

    name: Literal["sgd", "adam", "adamw", "lion", "adamw-8bit", "lion-8bit"] = "sgd"
    lr: float = 1e-4
    lr_batch: int | None = 256
    momentum: float = 0.9
    weight_decay: float = 1e-3
    final_weight_decay: float | None = None
    decay_vectors: bool = True
    clip: float | None = None
    clip_each: float | None = None
    schedule: Literal["constant", "cosine", "plateau"] = "constant"
    warmup_epochs: float = 0.0
    final: float = 0.0
    plateau: Plateau = Plateau()

    def __post_init__(self) -> None:
        for key in ("lr", "weight_decay", "warmup_epochs", "final"):
            value = getattr(self, key)
            check(0 <= value < math.inf, f"optimiser.{key}", value, "a number of at least 0")
        check(self.lr_batch is None or self.lr_batch >= 1, "optimiser.lr_batch", self.lr_batch, "at least 1, or null")
        check(0 <= self.momentum < 1, "optimiser.momentum", self.momentum, "a number from 0 to below 1")
        for key in ("clip", "clip_each"):
            value = getattr(self, key)
            check(value is None or value > 0, f"optimiser.{key}", value, "a number above 0, or null")
        final = self.final_weight_decay
        check(final is None or 0 <= final < math.inf, "optimiser.final_weight_decay", final, "at least 0, or null")

    def rate(self, clock: Clock) -> float:
        """The learning rate of the optimiser step that starts at `clock` (without a plateau's reductions)."""
        peak = self.lr * (clock.batch_size / self.lr_batch if self.lr_batch else 1)
        warmup = round(self.warmup_epochs * clock.steps_per_epoch)
        if clock.step < warmup:
            return peak * (clock.step + 1) / warmup
        if self.schedule != "cosine":
            return peak
        progress = (clock.step - warmup) / max(1, clock.total - warmup)
        return peak * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress)))

    def decay(self, clock: Clock) -> float:
        """The weight decay of the optimiser step that starts at `clock`."""
        final = self.weight_decay if self.final_weight_decay is None else self.final_weight_decay
        return cosine(clock.step / clock.total, self.weight_decay, final)

    def player(self, parameters: Iterable[nn.Parameter]) -> Player:
        """A player that trains those of `parameters` that require gradients, with these settings.

        Raises:
            UserError: when none does.
        """
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        if not trained:
            raise UserError("all parameters to be trained are frozen: set requires_grad of those that should train")
        decayed = [parameter for parameter in trained if self.decay_vectors or parameter.dim() > 1]
        kept = [parameter for parameter in trained if not self.decay_vectors and parameter.dim() <= 1]
        decay = self.weight_decay if self.final_weight_decay is None else self.decay
        groups = [Group(decayed, self.rate, decay), Group(kept, self.rate)]
        return Player(
            groups=[group for group in groups if group.parameters],
            optimiser=self._kind(),
            clip=self.clip,
            clip_each=self.clip_each,
            plateau=self.plateau if self.schedule == "plateau" else None,
            warmup_epochs=self.warmup_epochs,
        )

    def _kind(self) -> Callable[[list[dict[str, object]]], torch.optim.Optimizer]:
        if self.name == "sgd":
            return lambda groups: torch.optim.SGD(groups, momentum=self.momentum)
        if self.name in ("adam", "adamw"):  # fused, a step takes a third to a fifteenth of the time
            return partial(torch.optim.Adam if self.name == "adam" else torch.optim.AdamW, fused=True)
        package, cls, extra = _ELSEWHERE[self.name]
        torchvision_ops.install()
        try:
            found: Callable[[list[dict[str, object]]], torch.optim.Optimizer] = getattr(import_module(package), cls)
        except ImportError:
            raise missing_extra(f"optimiser {self.name} needs", extra) from None
        return found


def cosine(progress: float, start: float, end: float) -> float:
    """A value on half a cosine from `start` to `end`, `progress` from 0 to 1 of the way."""
    share = 0.5 * (1 + math.cos(math.pi * progress))
    return start * share + end * (1 - share)


def at(value: Scheduled, clock: Clock) -> float:
    """The value of a schedule at `clock`."""
    return value(clock) if callable(value) else value


@torch.no_grad()
def clip_each(parameters: Iterable[nn.Parameter], limit: float) -> None:
    """Shrink each tensor's gradient, where there is one, to a norm of at most `limit`."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients:
        norms = torch.stack(torch._foreach_norm(gradients))
        torch._foreach_mul_(gradients, list((limit / (norms + 1e-6)).clamp(max=1.0).unbind()))
