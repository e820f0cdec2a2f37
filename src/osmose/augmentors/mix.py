"""Learned patch-wise blending of the images of a group, between Mixup and CutMix."""

import math

import torch
from torch import Tensor, nn

from osmose.augmentors.augmentor import Augmentor
from osmose.errors import UserError, check


class Mix(Augmentor):
    """Blends the images of a group patch by patch (HARD-Mix, arXiv 2305.14890, figure 3B).

    Each patch is projected to a key; a query is drawn for each group from a learned normal distribution; the softmax over the
    group's images of key . query / (sqrt(d) * temperature) weighs the patches at each place. With a small `temperature` one image
    wins each patch, as in CutMix; with a large one all count alike, as in Mixup.

    Args:
        images: images of a group; the output is that many times smaller than the input.
        patch: side of a patch in pixels.
        width: d, the size of keys and query.
        noise: deviation of the query at the start.
        temperature: of the softmax over the group.
    """

    joint = True

    def __init__(
        self, *, images: int = 2, patch: int = 4, width: int = 32, noise: float = 0.1, temperature: float = 1.0
    ) -> None:
        super().__init__()
        check(images >= 2, "images", images, "at least 2")
        check(patch >= 1, "patch", patch, "at least 1")
        check(width >= 1, "width", width, "at least 1")
        check(noise > 0, "noise", noise, "a number above 0")
        check(temperature > 0, "temperature", temperature, "a number above 0")
        self.group, self.patch, self.width, self.temperature = images, patch, width, temperature
        self.mean = nn.Parameter(torch.randn(width))
        self.log_deviation = nn.Parameter(torch.full((width,), math.log(noise)))

    def fit(self, shape: tuple[int, ...]) -> None:
        channels, *size = shape
        if len(size) != 2 or size[0] % self.patch or size[1] % self.patch:
            raise UserError(
                f"augmentor mix cuts patches of {self.patch} pixels, inputs of {'x'.join(map(str, shape))} do not divide into "
                "them: set patch to a divisor of both sides of an image"
            )
        super().fit(shape)
        self.key = nn.Linear(channels * self.patch**2, self.width)

    def weights(self, x: Tensor) -> Tensor:
        """Weights of the group's images at each patch, float32 [n / group, group, rows, columns], from x [n, C, H, W]."""
        patches = nn.functional.unfold(x, self.patch, stride=self.patch).transpose(1, 2)
        keys = self.key(patches).unflatten(0, (-1, self.group))
        query = self.mean + self.log_deviation.exp() * torch.randn(len(keys), self.width, device=x.device)
        similarity = torch.einsum("bgnd,bd->bgn", keys, query) / math.sqrt(self.width)
        rows = x.shape[2] // self.patch
        return (similarity / self.temperature).softmax(1).unflatten(-1, (rows, -1))

    def forward(self, x: Tensor) -> Tensor:
        weights = self.weights(x).repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)
        return (weights[:, :, None] * x.unflatten(0, (-1, self.group))).sum(1)
