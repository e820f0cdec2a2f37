"""`fresh:nix:NAME`: teachers and students of HARD (arXiv 2305.14890), on MNIST those of Nix et al. 2022."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from osmose import torchvision_ops
from osmose.errors import UserError, missing_extra, unknown
from osmose.models.class_token_vit import ClassTokenViT
from osmose.models.model import Preprocessing
from osmose.models.network import Network, last_linear
from osmose.models.sources import Request

DROPOUT = 0.1


def fresh(key: str, request: Request) -> Network:
    """The architecture `key` for the data with new weights; images stay in [0, 1]."""
    if key not in _BUILD:
        raise unknown("architecture of nix", key, _BUILD)
    request.check_options()
    height, width = request.image_size or (28, 28)
    channels, classes = request.channels or 1, 10 if request.num_classes is None else request.num_classes
    arguments = {"num_classes": classes, "channels": channels, "image_size": [height, width]}
    return Network(
        build(key, arguments),
        name=request.name,
        architecture={"source": "nix", "name": key, "arguments": arguments},
        preprocessing=Preprocessing(
            mean=(0.0,) * channels,
            std=(1.0,) * channels,
            channels=channels,
            size=(height, width) if key in ("mlp", "vit", "vit-cifar10") else None,
        ),
        classes=request.classes,
        num_classes=classes,
    )


def build(key: str, arguments: dict[str, Any]) -> nn.Module:
    """The architecture `key` with new weights; for no classes without its last layer."""
    height, width = arguments["image_size"]
    classes = arguments["num_classes"]
    body = _BUILD[key](arguments["channels"], max(1, classes), (height, width))
    if not classes:
        body.set_submodule(last_linear(body), nn.Identity())
    return body


def _mlp(channels: int, classes: int, image_size: tuple[int, int]) -> nn.Module:
    height, width = image_size
    return nn.Sequential(
        nn.Flatten(), *_dense(channels * height * width, 512), *_dense(512, 128), *_dense(128, 32),
        nn.Linear(32, classes, bias=False),
    )  # fmt: skip


def _cnn(channels: int, classes: int, image_size: tuple[int, int]) -> nn.Module:
    return nn.Sequential(
        *_convolution(channels, 128, pool=1), *_convolution(128, 64, pool=2), *_convolution(64, 64, pool=3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes),
    )  # fmt: skip


def _resnet18(channels: int, classes: int, image_size: tuple[int, int]) -> nn.Module:
    """ResNet18 with a 3x3 convolution of stride 1 for a stem, and no pooling after it."""
    torchvision_ops.install()
    try:
        import timm
    except ImportError:
        raise missing_extra("nix:resnet18 needs", "vision") from None
    body: nn.Module = timm.create_model("resnet18", num_classes=classes, in_chans=channels)
    body.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    body.maxpool = nn.Identity()
    return body


def _vit(channels: int, classes: int, image_size: tuple[int, int], *, patch: int, **sizes: Any) -> nn.Module:
    if any(side % patch for side in image_size):
        raise UserError(
            f"patches of {patch} pixels do not divide images of {image_size[0]}x{image_size[1]}: resize them"
        )
    return ClassTokenViT(
        image_size=image_size, channels=channels, classes=classes, patch=patch, depth=6, heads=8, head_width=64, **sizes
    )


_BUILD: dict[str, Callable[..., nn.Module]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "resnet18": _resnet18,
    "vit": partial(_vit, patch=7, width=64, hidden=128, head_hidden=128),
    "vit-cifar10": partial(_vit, patch=4, width=512, hidden=512, dropout=DROPOUT),
}


def _dense(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(DROPOUT)]


def _convolution(inputs: int, outputs: int, pool: int) -> list[nn.Module]:
    """A 3x3 convolution without padding; `pool` of 1 is none."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3), nn.ReLU()]
    return [*layers, *([nn.MaxPool2d(pool)] if pool > 1 else []), nn.Dropout(DROPOUT)]
