"""`zoo:NAME`: the packaged classifiers; `fresh:zoo:NAME`: their architectures with new weights."""

from pathlib import Path
from typing import Any

import torch

from osmose.errors import UserError, unknown
from osmose.models import zoo
from osmose.models.model import Preprocessing
from osmose.models.network import Network
from osmose.models.sources import Request, file
from osmose.models.zoo import FASHION_MNIST, ZOO, Architecture
from osmose.models.zoo.body import Body
from osmose.weights import read_about

WEIGHTS = Path(zoo.__file__).parent / "weights"
_MEAN, _STD = 0.286, 0.353  # of Fashion-MNIST's training pixels


def trained(key: str, request: Request) -> Network:
    """The packaged network `key`."""
    _architecture(key)
    request.check_options()
    path = WEIGHTS / f"{key}.safetensors"
    if not path.exists():
        raise UserError(f"'zoo:{key}' has no weights in this installation: reinstall osmose, or use 'fresh:zoo:{key}'")
    return file.read(path, request.name)


def fresh(key: str, request: Request) -> Network:
    """The architecture `key` for the data with new weights; the options replace its settings."""
    request.check_options(_architecture(key).options)
    data = {"num_classes": request.num_classes, "channels": request.channels, "image_size": request.image_size}
    given = {argument: value for argument, value in data.items() if value is not None}
    arguments = {**FASHION_MNIST, **given, **request.options}
    height, width = arguments["image_size"]
    channels, num_classes = arguments["channels"], arguments["num_classes"]
    try:
        body = build(key, arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"'{request.name}' cannot be built with {dict(request.options)}: {error}") from error
    return Network(
        body,
        name=request.name,
        architecture={"source": "zoo", "name": key, "arguments": arguments | {"image_size": [height, width]}},
        preprocessing=Preprocessing(
            mean=(_MEAN,) * channels,
            std=(_STD,) * channels,
            channels=channels,
            size=(height, width) if body.fixed_size else None,
        ),
        classes=request.classes,
        num_classes=num_classes,
    )


def build(key: str, arguments: dict[str, Any]) -> Body:
    """The architecture `key` with new weights."""
    return _architecture(key)(**arguments)


def describe() -> list[dict[str, Any]]:
    """One row a network of the zoo, as `show_models` gives them."""
    return [_describe(key, architecture) for key, architecture in ZOO.items()]


def _describe(key: str, architecture: Architecture) -> dict[str, Any]:
    with torch.device("meta"):
        params = sum(parameter.numel() for parameter in architecture().parameters())
    path = WEIGHTS / f"{key}.safetensors"
    about = read_about(path) if path.exists() else {}
    return {
        "name": f"zoo:{key}",
        "family": architecture.family,
        "params": params,
        "bytes": path.stat().st_size if path.exists() else 0,
        "test_accuracy": about.get("test_accuracy"),
        "heldout_accuracy": about.get("heldout_accuracy"),
        "recipe": about.get("recipe"),
        "source": "zoo",
        "description": architecture.description,
    }


def _architecture(key: str) -> Architecture:
    if key not in ZOO:
        raise unknown("zoo model", key, ZOO)
    return ZOO[key]
