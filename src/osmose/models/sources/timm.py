"""`timm:NAME`: timm's networks with their published weights; `fresh:timm:NAME`: with new ones."""

import logging
from typing import Any

from torch import nn

from osmose import torchvision_ops
from osmose.errors import UserError, first_line, missing_extra, unknown
from osmose.models.model import Preprocessing
from osmose.models.network import Network
from osmose.models.sources import Request


def trained(key: str, request: Request) -> Network:
    """The network `key` with the weights timm names, from the hub or its local cache; options go to `create_model`."""
    timm = _timm(key)
    arguments = dict(request.options)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what fails is said in one line, below
    try:
        body = timm.create_model(key, pretrained=True, **arguments)
    except Exception as error:  # the hub's client has many kinds
        raise UserError(
            f"the weights of 'timm:{key}' cannot be had: {first_line(error)}; connect to the hub once, or use "
            f"'fresh:timm:{key}' or 'file:PATH'"
        ) from error
    return _network(key, body, arguments, request.name, _imagenet_classes(body.num_classes))


def fresh(key: str, request: Request) -> Network:
    """The architecture `key` for the data with new weights; options go to `create_model`.

    A network of fixed input size keeps its own and resizes the data's images, unless the option `img_size` changes it.
    """
    data = {"num_classes": request.num_classes, "in_chans": request.channels}
    arguments = {argument: value for argument, value in data.items() if value is not None} | dict(request.options)
    return _network(key, build(key, arguments), arguments, request.name, request.classes)


def build(key: str, arguments: dict[str, Any]) -> nn.Module:
    """The architecture `key` with new weights."""
    timm = _timm(key)
    try:
        body: nn.Module = timm.create_model(key, **arguments)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"timm cannot build '{key}' with {arguments}: {first_line(error)}; change or drop that argument"
        ) from error
    return body


def _timm(key: str) -> Any:
    torchvision_ops.install()
    try:
        import timm
    except ImportError:
        raise missing_extra("timm models need", "vision") from None
    if not timm.is_model(key.partition(".")[0]):  # after the dot stands the name of the weights
        raise unknown("timm model", key, timm.list_models())
    return timm


def _network(key: str, body: Any, arguments: dict[str, Any], name: str, classes: tuple[str, ...] | None) -> Network:
    about = body.pretrained_cfg
    channels = arguments.get("in_chans", about["input_size"][0])
    size = arguments.get("img_size", about["input_size"][1:])
    if isinstance(size, int):
        size = (size, size)
    return Network(
        body,
        name=name,
        architecture={"source": "timm", "name": key, "arguments": arguments},
        preprocessing=Preprocessing(
            mean=_per_channel(about["mean"], channels),
            std=_per_channel(about["std"], channels),
            channels=channels,
            size=tuple(size) if about.get("fixed_input_size") else None,
            crop_ratio=about["crop_pct"],
            interpolation=about["interpolation"],
        ),
        classes=classes,
        num_classes=body.num_classes,
    )


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """The values, or where the channels are not the published ones, their mean for each."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels


def _imagenet_classes(num_classes: int) -> tuple[str, ...] | None:
    """The WordNet ids that ImageNet-1k's folders are named by, in the order of timm's logits."""
    if num_classes != 1000:
        return None
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())
