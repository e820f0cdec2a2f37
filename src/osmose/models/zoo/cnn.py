"""Convolutional networks: plain (VGG, Simonyan and Zisserman 2015) and residual (He et al. 2016)."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from osmose.models.zoo.body import Body


def _convolution(inputs: int, outputs: int, stride: int, batch_norm: bool) -> nn.Sequential:
    norm = nn.BatchNorm2d(outputs) if batch_norm else nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=not batch_norm), norm)


class PlainCNN(Body):
    """3x3 convolutions one after another, each followed by ReLU; the mean over places is classified.

    Args:
        widths: output channels of each convolution.
        strides: stride of each convolution.
        batch_norm: whether each convolution is followed by batch normalisation (Ioffe and Szegedy 2015).
        num_classes: outputs of the classifier.
        channels: channels of the images.
        image_size: not used: any size will do.
    """

    fixed_size = False

    def __init__(
        self,
        *,
        widths: tuple[int, ...],
        strides: tuple[int, ...],
        batch_norm: bool,
        num_classes: int,
        channels: int,
        image_size: tuple[int, int],
    ) -> None:
        super().__init__(width=widths[-1], num_classes=num_classes)
        inputs = (channels, *widths[:-1])
        layers = zip(inputs, widths, strides, strict=True)
        self.layers = nn.ModuleList(_convolution(*layer, batch_norm) for layer in layers)

    def forward_features(self, x: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] to the last feature map [B, D, h, w]."""
        for layer in self.layers:
            x = F.relu(layer(x))
        return x


class _Block(nn.Module):
    """Two 3x3 convolutions around which the input is carried, by a 1x1 convolution where its shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, stride, batch_norm=True)
        self.second = _convolution(outputs, outputs, 1, batch_norm=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class ResNet(Body):
    """A 3x3 convolution of stride 2, then residual blocks; each block after the first halves the sides.

    Args:
        widths: output channels of each block; the first is the stem's too.
        num_classes: outputs of the classifier.
        channels: channels of the images.
        image_size: not used: any size will do.
    """

    fixed_size = False

    def __init__(
        self, *, widths: tuple[int, ...], num_classes: int, channels: int, image_size: tuple[int, int]
    ) -> None:
        super().__init__(width=widths[-1], num_classes=num_classes)
        self.stem = _convolution(channels, widths[0], 2, batch_norm=True)
        self.blocks = nn.Sequential(_Block(widths[0], widths[0], 1), *(_Block(a, b, 2) for a, b in pairwise(widths)))

    def forward_features(self, x: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] to the last feature map [B, D, h, w]."""
        return self.blocks(F.relu(self.stem(x)))
