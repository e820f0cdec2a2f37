"""Distillation whose slow weights are kept: momentum weight interpolation (XE-KL+MCL, arXiv 2310.17653)."""

import copy
from collections.abc import Mapping
from typing import Literal

import torch

from osmose.engine.clock import Clock
from osmose.engine.optimiser import Optimiser
from osmose.errors import check
from osmose.methods.distill import Distill
from osmose.models.network import Network
from osmose.signals import Frozen
from osmose.targets import FlipRule


class Momentum(Distill):
    """`distill`, of which a slow copy of the student is evaluated and saved (eq 3).

    Every `every`-th step, counted from the start of each epoch, theta_slow <- decay * theta_slow + (1 - decay) * theta_fast, over
    weights and running statistics.

    Args:
        student: the network that trains; its slow copy is the run's student.
        frozen: "teacher1", "teacher2", ...; and "initial", the initial student.
        decay: tau of eq 3.
        every: N, steps between two interpolations with batches of 256 samples; as many samples lie between them with others.
        restart: at the end of each epoch the fast weights become the slow ones, as they do in the paper's public code.
        target: who teaches which sample: a name, or who teaches positive, negative and neutral flips.
        temperature: T of the softened distributions.
        kl_weight: lambda, the weight of the distillation loss; the rest goes to cross-entropy with the labels.
        smoothing: label smoothing of the cross-entropy.
        cross_entropy_on: logits, or probabilities as in the paper's public code, which takes the softmax twice.
        optimiser: the student's optimiser.
    """

    summary = "XE-KL whose slowly moving average of weights is kept (MCL)"

    def __init__(
        self,
        student: Network,
        frozen: Mapping[str, Frozen],
        *,
        decay: float = 0.9999,
        every: int = 2,
        restart: bool = False,
        target: str | FlipRule = "teacher",
        temperature: float = 1.0,
        kl_weight: float = 0.7,
        smoothing: float = 0.0,
        cross_entropy_on: Literal["logits", "probabilities"] = "logits",
        optimiser: Optimiser = Optimiser(lr=0.01),
    ) -> None:
        super().__init__(
            student, frozen, target=target, temperature=temperature, kl_weight=kl_weight, smoothing=smoothing,
            cross_entropy_on=cross_entropy_on, optimiser=optimiser,
        )  # fmt: skip
        check(0 <= decay <= 1, "method.decay", decay, "a share between 0 and 1")
        check(every >= 1, "method.every", every, "at least 1")
        self.decay, self.every, self.restart = decay, every, restart
        self.slow = copy.deepcopy(student).requires_grad_(False)

    @torch.no_grad()
    def after_step(self, clock: Clock) -> None:
        within = clock.step % clock.steps_per_epoch
        if within % max(1, round(self.every * 256 / clock.batch_size)) == 0:
            slow, fast = _state(self.slow), _state(self.student)
            torch._foreach_lerp_(slow, fast, 1 - self.decay)
        if self.restart and within == clock.steps_per_epoch - 1:
            torch._foreach_copy_(_state(self.student), _state(self.slow))

    def products(self) -> dict[str, Network]:
        return {"student": self.slow}


def _state(network: Network) -> list[torch.Tensor]:
    """Weights and running statistics; counts of batches are no average and are read by nobody in evaluation mode."""
    return [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
