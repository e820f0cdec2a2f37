"""Additive Gaussian noise with a learned mean and deviation."""

import math

import torch
from torch import Tensor, nn

from osmose.augmentors.augmentor import Augmentor
from osmose.errors import check


class Gaussian(Augmentor):
    """x~ = x + mu + sigma * eps, with eps ~ N(0, 1) for each value; mu and sigma are one number each (arXiv 2305.14890, toy).

    Args:
        noise: sigma at the start.
    """

    def __init__(self, *, noise: float = 0.01) -> None:
        super().__init__()
        check(noise > 0, "noise", noise, "a number above 0")
        self.mean = nn.Parameter(torch.zeros(()))
        self.log_deviation = nn.Parameter(torch.tensor(math.log(noise)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mean + self.log_deviation.exp() * torch.randn_like(x)
