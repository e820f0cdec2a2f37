"""The best epoch so far by the held-out score."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from osmose.engine.method import Method
from osmose.engine.sharding import spread, unsharded


@dataclass
class Chosen:
    """The epoch with the best held-out score, and the products' weights after it.

    Attributes:
        score: the best score so far.
        epoch: the epoch after which it was reached, from 1; 0 before the first evaluation.
        weights: for each product its tensors by name, on the CPU, in the process that keeps them.
        waited: epochs since then or since the last reduction of the schedule "plateau".
        reductions: how often that schedule has lowered the rate.
        method: for that schedule the method's whole state after the best epoch, in every process; else empty.
    """

    score: float = float("-inf")
    epoch: int = 0
    weights: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    waited: int = 0
    reductions: int = 0
    method: dict[str, Any] = field(default_factory=dict)

    def update(self, score: float, epoch: int, method: Method, *, keep: bool = True, whole: bool = False) -> None:
        """Take in the score after `epoch`; when it is the best, `keep` the products' weights and, if `whole`, all state."""
        self.waited += 1
        if score > self.score:
            self.score, self.epoch, self.waited = score, epoch, 0
            found = {name: network.state_dict() for name, network in method.products().items()}
            products = unsharded(found, keep=keep)
            self.weights = {
                name: {key: value.detach().cpu().clone() for key, value in weights.items()}
                for name, weights in products.items()
                if keep
            }
            self.method = copy.deepcopy(unsharded(method.state_dict())) if whole else {}

    def reduce(self, method: Method, optimisers: Mapping[str, Optimizer]) -> None:
        """One reduction of the schedule "plateau": every network is as after the best epoch, and the optimisers start anew."""
        self.reductions += 1
        self.waited = 0
        method.load_state_dict(spread(self.method, method.state_dict()))
        for optimiser in optimisers.values():
            optimiser.state.clear()
