"""Heads of self-supervised networks: what they compare instead of classes (DINO, arXiv 2104.14294; MOKD, CVPR 2023)."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osmose.errors import UserError, check
from osmose.models.layout import Layout
from osmose.models.positions import resized_positions


@dataclass(frozen=True, kw_only=True)
class MLPHead:
    """The head behind pooled features: hidden layers with GELU, a narrow one, its direction, and the outputs.

    Args:
        layers: linear layers before the outputs.
        hidden: units of each but the last of them.
        bottleneck: units of the last.
    """

    layers: int = 3
    hidden: int = 2048
    bottleneck: int = 256

    def __post_init__(self) -> None:
        for key in ("layers", "hidden", "bottleneck"):
            check(getattr(self, key) >= 1, f"method.mlp_head.{key}", getattr(self, key), "at least 1")


@dataclass(frozen=True, kw_only=True)
class THead:
    """The head behind tokens, or places of a feature map: transformer layers, their mean, and the outputs.

    Args:
        layers: transformer layers.
        width: length of their tokens; none takes the widest transformer's, and 384 where there is none.
        heads: attention heads a layer; none takes 6, or the next smaller number that divides the width.
        ratio: hidden units of a layer's perceptron over its width.
    """

    layers: int = 3
    width: int | None = None
    heads: int | None = None
    ratio: int = 4

    def __post_init__(self) -> None:
        for key in ("layers", "ratio"):
            check(getattr(self, key) >= 1, f"method.t_head.{key}", getattr(self, key), "at least 1")
        for key in ("width", "heads"):
            value = getattr(self, key)
            check(value is None or value >= 1, f"method.t_head.{key}", value, "at least 1, or null")


_HEADS = 6
"""Attention heads of a T-Head's layers, of any width (public code)."""


class Prototypes(nn.Module):
    """A linear layer without bias, whose rows have a direction and a length; in float32, since its scores are sharpened.

    Args:
        width: of what comes in.
        outputs: K.
        fixed: whether the lengths stay 1.
    """

    def __init__(self, width: int, outputs: int, *, fixed: bool) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.empty(outputs, width))
        self.length = nn.Parameter(torch.ones(outputs, 1), requires_grad=not fixed)
        self.fixed = fixed
        bound = 1 / math.sqrt(width)
        nn.init.uniform_(self.direction, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., K]."""
        with torch.autocast(x.device.type, enabled=False):
            scores = F.linear(x.float(), F.normalize(self.direction, dim=-1))
            return scores if self.fixed else scores * self.length.T


class MLPOutputs(nn.Module):
    """What an `MLPHead` describes.

    Args:
        settings: its sizes.
        width: of the features.
        outputs: K.
        fixed: whether the prototypes' lengths stay 1.
    """

    def __init__(self, settings: MLPHead, width: int, outputs: int, *, fixed: bool) -> None:
        super().__init__()
        sizes = [width, *[settings.hidden] * (settings.layers - 1), settings.bottleneck]
        layers = [layer for before, after in pairwise(sizes) for layer in (nn.Linear(before, after), nn.GELU())]
        self.layers = nn.Sequential(*layers[:-1])
        self.last = Prototypes(settings.bottleneck, outputs, fixed=fixed)
        _initialise(self.layers)

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, width] to scores [B, K]."""
        return self.last(F.normalize(self.layers(features).float(), dim=-1))


class TOutputs(nn.Module):
    """What a `THead` describes.

    Args:
        settings: its sizes.
        layout: of the tokens of global crops.
        width: length D of a token in the head.
        outputs: K.
        project: whether tokens of this length already are projected too.
    """

    def __init__(self, settings: THead, layout: Layout, width: int, outputs: int, *, project: bool) -> None:
        super().__init__()
        heads = settings.heads or next(count for count in range(_HEADS, 0, -1) if width % count == 0)
        if width % heads:
            raise UserError(
                f"a T-Head of width {width} cannot be shared by {heads} attention heads: set method.t_head.heads to a divisor of "
                "it, or method.t_head.width"
            )
        self.grid = layout.grid
        places = layout.count - layout.front
        self.project: nn.Module = nn.Linear(layout.width, width) if project or layout.width != width else nn.Identity()
        self.positions = nn.Parameter(torch.empty(places, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, settings.ratio * width, dropout=0.0, activation="gelu", layer_norm_eps=1e-6,
            batch_first=True, norm_first=True,
        )  # fmt: skip
        norm = nn.LayerNorm(width, eps=1e-6)
        self.layers = nn.TransformerEncoder(layer, settings.layers, norm=norm, enable_nested_tensor=False)
        self.last = Prototypes(width, outputs, fixed=False)
        _initialise(self)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def query(self, tokens: Tensor) -> Tensor:
        """What a network asks another one's T-Head: the mean of its projected tokens [B, N, E], [B, D]."""
        return self.project(tokens.mean(1))

    def pooled(self, tokens: Tensor, layout: Layout, query: Tensor | None = None) -> Tensor:
        """What the prototypes score, [B, D], of tokens.

        Args:
            tokens: [B, N, E], without those in front.
            layout: theirs.
            query: [B, D], a token more, which has no position and is left out of the mean; None for none.
        """
        x = self.project(tokens) + self._positions(layout)
        if query is None:
            return self.layers(x).mean(1)
        return self.layers(torch.cat([query.unsqueeze(1), x], 1))[:, 1:].mean(1)

    def forward(self, tokens: Tensor, layout: Layout, query: Tensor | None = None) -> Tensor:
        """Scores [B, K] of what `pooled` gives."""
        return self.last(self.pooled(tokens, layout, query))

    def _positions(self, layout: Layout) -> Tensor:
        assert self.grid is not None
        assert layout.grid is not None
        return resized_positions(self.positions, self.grid, layout.grid)


def _initialise(module: nn.Module) -> None:
    """Linear layers as in DINO: a normal of deviation 0.02, cut off, and no bias."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.MultiheadAttention):
            nn.init.trunc_normal_(layer.in_proj_weight, std=0.02)
            nn.init.zeros_(layer.in_proj_bias)
