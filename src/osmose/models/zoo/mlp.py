"""Networks of linear layers: a perceptron, MLP-Mixer (Tolstikhin et al. 2021), ResMLP (Touvron et al. 2021)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osmose.models.zoo.body import Body, Patches


class MLP(Body):
    """All pixels to one hidden layer with ReLU to the classes; its tokens are the one hidden vector.

    Args:
        width: hidden units.
        num_classes: outputs of the classifier.
        channels: channels of the images.
        image_size: height and width of the images.
    """

    def __init__(self, *, width: int, num_classes: int, channels: int, image_size: tuple[int, int]) -> None:
        super().__init__(width=width, num_classes=num_classes)
        self.hidden = nn.Linear(channels * image_size[0] * image_size[1], width)

    def forward_features(self, x: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] to one token [B, 1, D]."""
        return F.relu(self.hidden(x.flatten(1))).unsqueeze(1)


def _two_layers(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class _MixerLayer(nn.Module):
    """An MLP across tokens, then one across channels; both normalised before and carried around."""

    def __init__(self, tokens: int, width: int, token_hidden: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.across_tokens = _two_layers(tokens, token_hidden)
        self.norm2 = nn.LayerNorm(width)
        self.across_channels = _two_layers(width, mlp_ratio * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.across_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.across_channels(self.norm2(x))


class Mixer(Body):
    """MLP-Mixer: patches, layers that mix tokens and channels in turn, mean over tokens.

    Args:
        patch: side of a patch.
        width: length D of a token.
        depth: number of layers.
        token_hidden: hidden units of the MLP across tokens.
        mlp_ratio: hidden units of the MLP across channels over D.
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
        token_hidden: int,
        mlp_ratio: int = 2,
        num_classes: int,
        channels: int,
        image_size: tuple[int, int],
    ) -> None:
        super().__init__(width=width, num_classes=num_classes)
        self.patches = Patches(channels=channels, image_size=image_size, size=patch, width=width)
        self.layers = nn.Sequential(
            *(_MixerLayer(self.patches.number, width, token_hidden, mlp_ratio) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(width)

    def forward_features(self, x: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] to tokens [B, N, D]."""
        return self.norm(self.layers(self.patches(x)))


class _Affine(nn.Module):
    """A scale and a shift for each channel, in place of normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale)


class _ResMLPLayer(nn.Module):
    """One linear layer across tokens, then an MLP across channels; branches start at a tenth of their size."""

    def __init__(self, tokens: int, width: int, mlp_ratio: int) -> None:
        super().__init__()
        self.affine1 = _Affine(width)
        self.across_tokens = nn.Linear(tokens, tokens)
        self.scale1 = nn.Parameter(torch.full((width,), 0.1))
        self.affine2 = _Affine(width)
        self.across_channels = _two_layers(width, mlp_ratio * width)
        self.scale2 = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale1 * self.across_tokens(self.affine1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.scale2 * self.across_channels(self.affine2(x))


class ResMLP(Body):
    """ResMLP: patches, residual layers without normalisation, mean over tokens.

    Args:
        patch: side of a patch.
        width: length D of a token.
        depth: number of layers.
        mlp_ratio: hidden units of the MLP across channels over D.
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
        mlp_ratio: int = 2,
        num_classes: int,
        channels: int,
        image_size: tuple[int, int],
    ) -> None:
        super().__init__(width=width, num_classes=num_classes)
        self.patches = Patches(channels=channels, image_size=image_size, size=patch, width=width)
        self.layers = nn.Sequential(*(_ResMLPLayer(self.patches.number, width, mlp_ratio) for _ in range(depth)))
        self.affine = _Affine(width)

    def forward_features(self, x: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] to tokens [B, N, D]."""
        return self.affine(self.layers(self.patches(x)))
