"""Vision transformers (Dosovitskiy et al. 2021), pooled by the mean over tokens (Beyer et al. 2022).

Linear layers keep PyTorch's initialisation, which grows with the width's inverse root: the usual deviation of 0.02 is
meant for widths of 768, and at a tenth of it the branches start so small that training is slow.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osmose.errors import UserError
from osmose.models.positions import resized_positions
from osmose.models.zoo.body import Body, Patches


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"a width of {width} cannot be shared by {heads} heads: choose a divisor of it")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _DropPath(nn.Module):
    """In training, leaves a residual branch out for a sample with probability `rate` (Huang et al. 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        return x * x.new_empty(x.shape[0], 1, 1).bernoulli_(1 - self.rate).div_(1 - self.rate)


class _Layer(nn.Module):
    """Attention between tokens, then an MLP on each; both normalised before and carried around."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_ratio * width, width)
        )
        self.drop_path = _DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ViT(Body):
    """Patches, learned positions, pre-normalised transformer layers, mean over tokens.

    For images of another size than its own the positions are interpolated.

    Args:
        patch: side of a patch.
        width: length D of a token.
        depth: number of layers.
        heads: attention heads a layer.
        mlp_ratio: width of the MLP's hidden layer over D.
        dropout: share of the MLP's hidden units left out in training.
        drop_path: probability that a layer's branch is left out for a sample in training.
        num_classes: outputs of the classifier.
        channels: channels of the images.
        image_size: height and width of the images.
    """

    def __init__(
        self,
        *,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: int = 2,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        num_classes: int,
        channels: int,
        image_size: tuple[int, int],
    ) -> None:
        super().__init__(width=width, num_classes=num_classes)
        self.patches = Patches(channels=channels, image_size=image_size, size=patch, width=width)
        self.position = nn.Parameter(torch.empty(self.patches.number, width))
        self.layers = nn.Sequential(*(_Layer(width, heads, mlp_ratio, dropout, drop_path) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward_features(self, x: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] to tokens [B, N, D]."""
        position = resized_positions(self.position, self.patches.grid, self.patches.grid_of(x.shape[2], x.shape[3]))
        return self.norm(self.layers(self.patches(x) + position))
