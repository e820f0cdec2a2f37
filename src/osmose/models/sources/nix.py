"""`fresh:nix:cnn`, `fresh:nix:mlp`: teacher and student on MNIST in HARD (arXiv 2305.14890), after Nix et al. 2022."""

from typing import Any

from torch import nn

from osmose.errors import unknown
from osmose.models.network import Network, Preprocessing
from osmose.models.sources import Request

DROPOUT = 0.1
NAMES = ("cnn", "mlp")


def fresh(key: str, request: Request) -> Network:
    """The architecture `key` for the data with new weights; images stay in [0, 1]."""
    if key not in NAMES:
        raise unknown("architecture of nix", key, NAMES)
    request.check_options()
    height, width = request.image_size or (28, 28)
    arguments = {
        "num_classes": request.num_classes or 10,
        "channels": request.channels or 1,
        "image_size": [height, width],
    }
    channels: int = request.channels or 1
    return Network(
        build(key, arguments),
        name=request.name,
        architecture={"source": "nix", "name": key, "arguments": arguments},
        preprocessing=Preprocessing(
            mean=(0.0,) * channels,
            std=(1.0,) * channels,
            channels=channels,
            size=(height, width) if key == "mlp" else None,
        ),
        classes=request.classes,
        num_classes=request.num_classes or 10,
    )


def build(key: str, arguments: dict[str, Any]) -> nn.Module:
    """The architecture `key` with new weights."""
    channels, classes = arguments["channels"], arguments["num_classes"]
    if key == "mlp":
        height, width = arguments["image_size"]
        return nn.Sequential(
            nn.Flatten(), *_dense(channels * height * width, 512), *_dense(512, 128), *_dense(128, 32),
            nn.Linear(32, classes, bias=False),
        )  # fmt: skip
    return nn.Sequential(
        *_convolution(channels, 128, pool=1), *_convolution(128, 64, pool=2), *_convolution(64, 64, pool=3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes),
    )  # fmt: skip


def _dense(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(DROPOUT)]


def _convolution(inputs: int, outputs: int, pool: int) -> list[nn.Module]:
    """A 3x3 convolution without padding; `pool` of 1 is none."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3), nn.ReLU()]
    return [*layers, *([nn.MaxPool2d(pool)] if pool > 1 else []), nn.Dropout(DROPOUT)]
