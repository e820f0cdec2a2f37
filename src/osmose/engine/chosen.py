"""The best epoch so far by the held-out score."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass
class Chosen:
    """The epoch with the best held-out score, and the products' weights after it.

    Attributes:
        score: the best score so far.
        epoch: the epoch after which it was reached, from 1; 0 before the first evaluation.
        weights: for each product its tensors by name, on the CPU.
        waited: epochs since then or since the last reduction of the schedule "plateau".
        reductions: how often that schedule has lowered the rate.
    """

    score: float = float("-inf")
    epoch: int = 0
    weights: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    waited: int = 0
    reductions: int = 0

    def update(self, score: float, epoch: int, products: Mapping[str, nn.Module]) -> None:
        """Take in the score after `epoch`; keep the products' weights when it is the best."""
        self.waited += 1
        if score > self.score:
            self.score, self.epoch, self.waited = score, epoch, 0
            self.weights = {
                name: {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
                for name, network in products.items()
            }

    def reduce(self, products: Mapping[str, nn.Module]) -> None:
        """One reduction of the schedule "plateau": the best weights go back into the products."""
        self.reductions += 1
        self.waited = 0
        for name, network in products.items():
            network.load_state_dict(self.weights[name])
