"""A network that learns by contrast: its embeddings, a slow twin's, and the twin's last ones (MoCo, arXiv 1911.05722)."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osmose.methods.learner import only_batch_norm_trains
from osmose.methods.queue import Queue
from osmose.models.network import Network


class Contrasted(nn.Module):
    """A network with a perceptron behind its features, slow twins of both, and a queue of what the twins said.

    Args:
        network: without a classifier.
        features: how many it has.
        hidden: units of the perceptron's hidden layer.
        width: numbers of an embedding.
        queue: how many embeddings are kept.
        momentum: share of the twins that stays in a step.
    """

    def __init__(
        self, network: Network, features: int, *, hidden: int, width: int, queue: int, momentum: float
    ) -> None:
        super().__init__()
        self.network, self.momentum = network, momentum
        self.projection = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.twin: Network = copy.deepcopy(network).requires_grad_(False)
        self.twin_projection = copy.deepcopy(self.projection).requires_grad_(False)
        self.queue = Queue(queue, width)

    def train(self, mode: bool = True) -> "Contrasted":
        """The twin has no dropout; its batch normalisation sees its own batches."""
        super().train(mode)
        only_batch_norm_trains(self.twin, mode)
        return self

    def trained(self) -> list[nn.Parameter]:
        """What an optimiser moves."""
        return [*self.network.parameters(), *self.projection.parameters()]

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of length 1, float32 [n, width]."""
        return unit(self.projection(self.network(x).features))

    @torch.no_grad()
    def key(self, x: Tensor) -> Tensor:
        """The twin's embeddings of length 1, float32 [n, width]."""
        return unit(self.twin_projection(self.twin(x).features))

    @torch.no_grad()
    def follow(self) -> None:
        """After a step: the twins move, and the queue takes in what was seen."""
        self.queue.after_step()
        slow: list[Tensor] = [*self.twin.parameters(), *self.twin_projection.parameters()]
        torch._foreach_lerp_(slow, [*self.trained()], 1 - self.momentum)


def unit(embeddings: Tensor) -> Tensor:
    """Scaled to length 1, in float32."""
    return F.normalize(embeddings.float(), dim=-1)
