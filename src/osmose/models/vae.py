"""A small convolutional variational autoencoder of residual blocks (Kingma and Welling 2014)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Latent(NamedTuple):
    """A normal distribution over latent maps [B, D, h, w].

    Attributes:
        mean: its mean.
        log_variance: the logarithm of its variance.
    """

    mean: Tensor
    log_variance: Tensor

    def divergence(self) -> Tensor:
        """KL of this distribution from the standard normal one, for each image [B]."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance).flatten(1).sum(1)


class ResidualVAE(nn.Module):
    """Two halvings of the image's sides, residual blocks, a latent map; and the way back.

    Args:
        channels: channels of the images, whose sides are multiples of 4.
        width: channels inside.
        latent: D, channels of the latent map.
        blocks: residual blocks at each of three places on either way.
    """

    def __init__(self, *, channels: int, width: int = 32, latent: int = 8, blocks: int = 1) -> None:
        super().__init__()

        def residual() -> list[nn.Module]:
            return [_Block(width) for _ in range(blocks)]

        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), *residual(),
            nn.Conv2d(width, width, 4, stride=2, padding=1), *residual(),
            nn.Conv2d(width, width, 4, stride=2, padding=1), *residual(),
            nn.Conv2d(width, 2 * latent, 1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(latent, width, 1), *residual(),
            nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1), *residual(),
            nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1), *residual(),
            nn.Conv2d(width, channels, 3, padding=1), nn.Sigmoid(),
        )  # fmt: skip

    def encode(self, x: Tensor) -> Latent:
        """The posterior of images [B, C, H, W] in [0, 1]."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return Latent(mean, log_variance.clamp(-10, 10))

    def decode(self, latent: Tensor) -> Tensor:
        """Images in [0, 1] from latent maps."""
        images: Tensor = self.decoder(latent)
        return images

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Images like x: decoded from its posterior's mean plus `noise` times standard normal numbers."""
        mean = self.encode(x).mean
        return self.decode(mean + noise * torch.randn_like(mean))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        after: Tensor = x + self.second(F.silu(self.first(F.silu(x))))
        return after
