"""Models by name: `SOURCE:KEY`, `fresh:SOURCE:KEY` with new weights, `head:SOURCE:KEY` with a new head only."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from osmose.errors import UserError, unknown
from osmose.models.last_layers import LastLayers
from osmose.models.network import Network, last_linear
from osmose.models.options import options as arguments
from osmose.models.sources import SOURCES, Request, module, rebuilt, source, zoo
from osmose.models.zoo import ZOO
from osmose.random import stream as random_stream

_READS = frozenset({"last_layers", "patch_mean"})
"""Options of a new head: what it reads."""


def load_model(
    name: str | nn.Module,
    *,
    classes: tuple[str, ...] | None = None,
    num_classes: int | None = None,
    channels: int | None = None,
    image_size: tuple[int, int] | None = None,
    ratings: Mapping[str, Any] | None = None,
    seed: int = 0,
    stream: str = "student/init",
    **module_kwargs: Any,
) -> Network:
    """Give a network by name, or wrap a module.

    Names are `zoo:NAME` (packaged weights), `timm:NAME` (weights from the hub), `file:PATH` (a file of `Network.save`
    or a run's folder), `fresh:zoo:NAME` and `fresh:timm:NAME` (the architecture with new weights for the data described
    here), and `head:` before a trained name (its weights with a new head for the data's classes). Arguments of the
    architecture may follow the name: `fresh:zoo:vit-s,patch=4,width=96`; `head:zoo:vit-m,depth=2` are the first two blocks of a
    trained network, and the new classifier of `head:file:PATH,last_layers=4` reads the last four layers
    (`osmose.models.last_layers`). New weights are drawn from the named random
    stream; torch's global generators are left as they were.

    Args:
        name: a name as above, a `Network` (returned as it is) or a module that maps images to logits.
        classes: the data's class names, for new weights and heads; for a module its own.
        num_classes: their number, where the names are not known.
        channels: channels of the data's images.
        image_size: height and width of the data's images.
        ratings: facts about data of ratings, see `osmose.models.sources.Request`.
        seed: seed of the random stream.
        stream: name of the random stream.
        module_kwargs: a module's `mean`, `std` and `size` (default 0, 1 and any); for `fresh:` and `timm:` arguments of
            the architecture.

    Raises:
        UserError: when the name is unknown, its weights cannot be had or are not finite, or an argument does not fit.
    """
    if isinstance(name, Network):
        _check_finite(name)
        return name
    if classes is not None and num_classes not in (None, len(classes)):
        raise UserError(f"num_classes is {num_classes} but classes names {len(classes)}: give one of the two")
    request = Request(
        name=name if isinstance(name, str) else f"module:{type(name).__name__}",
        options=module_kwargs,
        classes=classes,
        num_classes=num_classes if classes is None else len(classes),
        channels=channels,
        image_size=image_size,
        ratings=ratings,
    )
    with random_stream(seed, stream):
        network = _by_name(name, request) if isinstance(name, str) else module.wrap(name, request)
    _check_finite(network)
    return network


def show_models() -> list[dict[str, Any]]:
    """The zoo, a row a network: name, family, params, bytes, the two accuracies, recipe, source and description.

    `test_accuracy` and `heldout_accuracy` are in percent; where no trained weights are installed they and `recipe` are
    None and `bytes` is 0.
    """
    return zoo.describe()


def _by_name(name: str, request: Request) -> Network:
    way, _, rest = name.partition(":") if name.startswith(("fresh:", "head:")) else ("", "", name)
    prefix, colon, key = rest.partition(":")
    if prefix != "file" or not Path(key).exists():
        key, comma, options = key.partition(",")
        request = replace(request, options={**request.options, **(arguments(name, options) if comma else {})})
    if not colon or prefix not in SOURCES:
        start = f"{way}:" if way else ""
        if not way and (Path(rest).exists() or Path(rest).suffix in (".safetensors", ".pt", ".pth")):
            raise UserError(f"model '{name}' is a path: write file:{name}")
        others = [f"{start}{prefix}:NAME" for prefix in SOURCES if prefix != "zoo"]
        known = [*(f"{start}zoo:{key}" for key in ZOO), *others]
        if colon or rest in ZOO:
            raise unknown("model", name, known)
        raise UserError(
            f"unknown model '{name}': names begin with their source, for example {start}zoo:cnn-s, or {start}timm:{rest}"
        )
    if way != "head" and not _READS.isdisjoint(request.options):
        raise UserError(f"'{name}': last_layers is of a new classifier: write head:{rest}")
    origin = source(prefix)
    if way == "fresh":
        if not hasattr(origin, "fresh"):
            raise UserError(
                f"'{name}': '{rest}' names weights, not an architecture; use 'fresh:zoo:NAME' or 'head:{rest}'"
            )
        network: Network = origin.fresh(key, request)
    elif not hasattr(origin, "trained"):
        raise UserError(f"'{name}': '{rest}' names an architecture that has no weights here; use 'fresh:{rest}'")
    elif way == "head":
        network = _new_head(origin.trained(key, replace(request, options={})), request)
    else:
        network = origin.trained(key, request)
    return network


def _new_head(network: Network, request: Request) -> Network:
    if request.num_classes is None and request.ratings is not None:
        raise UserError(f"'{request.name}': networks of ratings have no head for other classes: leave head: out")
    if request.num_classes is None:
        raise UserError(f"'{request.name}' needs the data's classes for its head: give classes or num_classes")
    assert network.architecture is not None, "what has a name can be rebuilt"
    reads = {key: value for key, value in request.options.items() if key in _READS}
    options = {key: value for key, value in request.options.items() if key not in _READS}
    arguments = network.architecture["arguments"] | options | {"num_classes": request.num_classes}
    architecture = network.architecture | {"arguments": arguments}
    body = network.body
    resets = hasattr(body, "reset_classifier")
    if options or not resets:
        body = _smaller(network, architecture, request.name)
    if reads:
        body, architecture = _reading(body, architecture, reads, request.name)
    if resets:
        body.reset_classifier(request.num_classes)
    return Network(
        body,
        name=request.name,
        architecture=architecture,
        preprocessing=network.preprocessing,
        classes=request.classes,
        num_classes=request.num_classes,
    )


def _reading(
    body: nn.Module, architecture: dict[str, Any], reads: dict[str, Any], name: str
) -> tuple[LastLayers, dict[str, Any]]:
    """The body whose classifier reads what `reads` says, and its architecture.

    Raises:
        UserError: when it cannot.
    """
    if "last_layers" not in reads:
        raise UserError(f"'{name}': patch_mean stands beside last_layers: add last_layers=1")
    if "reads" in architecture:
        raise UserError(
            f"'{name}': this network was made with last_layers: leave it out, or give the network that it was made from"
        )
    try:
        return LastLayers(body, num_classes=0, **reads), architecture | {"reads": reads}
    except UserError as error:
        raise UserError(f"'{name}': {error}") from error


def _smaller(network: Network, architecture: dict[str, Any], name: str) -> nn.Module:
    """The architecture, the network's with other arguments, and those of its weights that have a place there.

    Raises:
        UserError: when a weight of it, but for the classifier's, is not one of the network's.
    """
    assert network.architecture is not None, "what has a name can be rebuilt"
    arguments = architecture["arguments"]
    for key, value in arguments.items():
        if key not in ("depth", "num_classes") and network.architecture["arguments"].get(key) != value:
            raise UserError(
                f"'{name}': option '{key}' does not fit trained weights: keep fewer of their layers, as depth=4, or read "
                "several, as last_layers=4"
            )
    try:
        body: Any = rebuilt(architecture)
    except (UserError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"'{name}' cannot be built: {error}") from error
    own, given = body.state_dict(), network.body.state_dict()
    head: nn.Module = nn.Identity()
    if arguments["num_classes"]:
        head = body.get_classifier() if hasattr(body, "get_classifier") else body.get_submodule(last_linear(body))
    classifier = {id(parameter) for parameter in head.parameters()}
    heads = {key for key, parameter in body.named_parameters() if id(parameter) in classifier}
    foreign = [key for key in own if key not in heads and (key not in given or given[key].shape != own[key].shape)]
    if foreign:
        raise UserError(
            f"'{name}': '{foreign[0]}' has no trained weights of this shape in '{network.name}': only fewer layers can be kept, "
            "as depth=4"
        )
    body.load_state_dict({key: value for key, value in given.items() if key in own and key not in heads}, strict=False)
    return body


def _check_finite(network: Network) -> None:
    for name, tensor in network.body.state_dict().items():
        if tensor.is_floating_point() and not tensor.is_meta and not torch.isfinite(tensor).all():
            raise UserError(
                f"'{network.name}' holds NaN or infinity in '{name}': its training diverged; give an earlier checkpoint"
            )
