"""How well a linear classifier reads features: logistic regression on features that stay as they are."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Weights of the squared weights, of which the best on held-out samples is taken."""


class Probe(NamedTuple):
    """A linear classifier of features.

    Attributes:
        weight: [classes, D].
        bias: [classes].
        decay: that was chosen.
    """

    weight: Tensor
    bias: Tensor
    decay: float

    def __call__(self, features: Tensor) -> Tensor:
        """The class of features [m, D], int64 [m]."""
        return F.linear(features, self.weight, self.bias).argmax(-1)


def linear_probe(
    features: Tensor,
    labels: Tensor,
    heldout: tuple[Tensor, Tensor] | None,
    *,
    classes: int,
    steps: int = 100,
    device: torch.device | str = "cpu",
) -> Probe:
    """Logistic regression, with the weight decay that is best on held-out samples; the first of several as good.

    The features are brought to mean 0 and deviation 1 for training, and the classifier back to them as they are. L-BFGS in
    float32 takes up to `steps` steps from zero, so that there is nothing random in it.

    Args:
        features: [n, D].
        labels: int64 [n].
        heldout: features and labels of others, by which the decay is chosen; None takes the middle one.
        classes: number of classes.
        steps: of the optimiser.
        device: where the features are read.
    """
    mean, deviation = features.mean(0), features.std(0).clamp(min=1e-6)
    inputs, classes_of = ((features - mean) / deviation).to(device), labels.to(device)
    best: tuple[float, Probe] | None = None
    for decay in _DECAYS if heldout else (1e-2,):
        weight, bias = _fit(inputs, classes_of, classes, decay, steps)
        probe = Probe(weight / deviation, bias - (weight / deviation) @ mean, decay)
        right = (probe(heldout[0]) == heldout[1]).float().mean().item() if heldout else 0.0
        if best is None or right > best[0]:
            best = right, probe
    assert best is not None
    return best[1]


def _fit(inputs: Tensor, labels: Tensor, classes: int, decay: float, steps: int) -> tuple[Tensor, Tensor]:
    """L-BFGS keeps its many short sums on the CPU, where none waits for another device; the features stay on theirs."""
    weight = torch.zeros(classes, inputs.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        with torch.enable_grad():
            scores = F.linear(inputs, weight.to(inputs.device), bias.to(inputs.device))
            value = F.cross_entropy(scores, labels).cpu() + decay / 2 * weight.square().sum()
            value.backward()
        return value

    optimiser.step(loss)
    return weight.detach(), bias.detach()
