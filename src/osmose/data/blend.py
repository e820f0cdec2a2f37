"""What is done to a whole batch after its views: samples mixed with one another, or noise. Not numbered, so never stored."""

import random
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from osmose.data.batch import Batch
from osmose.errors import check
from osmose.random import seed_of


@dataclass(frozen=True, kw_only=True)
class Blend:
    """Mixup (arXiv 1710.09412), CutMix (arXiv 1905.04899), or Gaussian noise.

    Both mix each sample with another one of its micro-batch, in the same proportion for all, drawn from Beta(alpha, alpha);
    CutMix takes a box of that share of the area from the other. Classes become probabilities, numbers are mixed like the inputs.
    "mixup-or-cutmix" is one of the two at each step, as likely.

    Args:
        name: none, mixup, cutmix, mixup-or-cutmix or noise.
        alpha: of the Beta distribution.
        noise: standard deviation of the noise.
    """

    name: Literal["none", "mixup", "cutmix", "mixup-or-cutmix", "noise"] = "none"
    alpha: float = 1.0
    noise: float = 1.0

    def __post_init__(self) -> None:
        check(self.alpha > 0, "blend.alpha", self.alpha, "a number above 0")
        check(self.noise > 0, "blend.noise", self.noise, "a number above 0")

    @property
    def mixes(self) -> bool:
        """Whether a sample's label becomes a mixture."""
        return self.name in ("mixup", "cutmix", "mixup-or-cutmix")

    def __call__(self, batch: Batch, classes: int | None, seed: int, *counters: int) -> Batch:
        """The batch with what this does to it; random numbers come from the stream "data/blend".

        Args:
            batch: one micro-batch.
            classes: number of classes; None for numbers as labels.
            seed: the run's seed.
            counters: tell this micro-batch from others: epoch, step, shard.
        """
        if self.name == "none":
            return batch
        start = seed_of(seed, "data/blend", *counters)
        generator = torch.Generator().manual_seed(start)
        if self.name == "noise":
            noise = torch.randn(batch.x.shape, generator=generator).to(batch.x.device)
            return replace(batch, view=None, x=batch.x + self.noise * noise)
        chance = random.Random(start)
        kept = chance.betavariate(self.alpha, self.alpha)
        mixup = self.name == "mixup" or (self.name == "mixup-or-cutmix" and chance.random() < 0.5)
        others = torch.randperm(len(batch.x), generator=generator).to(batch.x.device)
        if mixup:
            x = kept * batch.x + (1 - kept) * batch.x[others]
        else:
            x, kept = _cut(batch.x, batch.x[others], kept, generator)
        y = batch.y
        if y is not None:
            y = y if classes is None else F.one_hot(y, classes).float()
            y = kept * y + (1 - kept) * y[others]
        return replace(batch, view=None, x=x, y=y)


def _cut(x: Tensor, other: Tensor, kept: float, generator: torch.Generator) -> tuple[Tensor, float]:
    """Images with a box of `other`, and the share of their area that is left."""
    height, width = x.shape[2:]
    side = (1 - kept) ** 0.5
    row, column = (int(torch.randint(length, (), generator=generator)) for length in (height, width))
    top, bottom = (max(0, min(height, row + sign * int(height * side) // 2)) for sign in (-1, 1))
    left, right = (max(0, min(width, column + sign * int(width * side) // 2)) for sign in (-1, 1))
    mixed = x.clone()
    mixed[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)
