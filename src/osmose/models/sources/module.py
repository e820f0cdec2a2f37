"""Modules given through the API."""

from typing import Any

from torch import nn

from osmose.models.model import Preprocessing
from osmose.models.network import Network, last_linear
from osmose.models.sources import Request


def wrap(module: nn.Module, request: Request) -> Network:
    """A network around `module`, which maps images normalised by the options `mean` and `std` (0 and 1) to logits; or, for
    data of ratings, users and items, int64 [B, 2], to ratings [B, 1].

    Its channels are as many as `mean` or `std` has numbers, else its first convolution's, else the data's, else 3.
    Its classes are as many as `num_classes` of the module says, else as its last linear layer has outputs; 0 where it
    has none, and gives features.
    """
    num_classes: Any = getattr(module, "num_classes", None)
    if not isinstance(num_classes, int):
        linear = last_linear(module)
        num_classes = module.get_submodule(linear).out_features if linear else 0
    if request.ratings is not None:
        request.check_options()
        return Network(
            module, name=request.name, architecture=None, preprocessing=None, classes=None, num_classes=num_classes
        )
    request.check_options(("mean", "std", "size"))
    mean, std, size = (request.options.get(option) for option in ("mean", "std", "size"))
    convolutions = (layer.in_channels for layer in module.modules() if isinstance(layer, nn.Conv2d))
    channels = len(mean or std or ()) or next(convolutions, None) or request.channels or 3
    return Network(
        module,
        name=request.name,
        architecture=None,
        preprocessing=Preprocessing(
            mean=tuple(mean or (0.0,) * channels),
            std=tuple(std or (1.0,) * channels),
            channels=channels,
            size=tuple(size) if size else None,
        ),
        classes=request.classes,
        num_classes=num_classes,
    )
