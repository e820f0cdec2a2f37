"""Models that are looked at side by side, and the part of the data on which they are."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn

from osmose.data import Dataset
from osmose.data.ratings import Ratings
from osmose.data.split import Split
from osmose.errors import UserError, check
from osmose.models import load_model
from osmose.models.network import Network
from osmose.models.zoo import ZOO
from osmose.pair_check import check_head

Model = str | nn.Module


def load_candidates(
    models: Sequence[Model], data: Dataset, *, head: Callable[[Network], bool] = lambda network: True
) -> dict[str, Network]:
    """Networks by the names they have in tables, each checked against the data.

    Args:
        models: names or modules; "zoo:*" stands for the whole zoo. One whose name another had before has its place behind, as in
            "NAME (3)" of the third.
        data: what they are asked about.
        head: whether a network needs a classifier for the data's classes.

    Raises:
        UserError: when there is none, or one does not fit the data's classes.
    """
    check(bool(models), "models", models, "at least one model")
    found: dict[str, Network] = {}
    for model in expanded(models):
        network = load_candidate(model, data)
        if head(network):
            check_head(network.name, network, data)
        found[network.name if network.name not in found else f"{network.name} ({len(found) + 1})"] = network
    return found


def expanded(models: Sequence[Model]) -> list[Model]:
    """The models, with the zoo's names in the place of "zoo:*"."""
    zoo: list[Model] = [f"zoo:{name}" for name in ZOO]
    return [one for model in models for one in (zoo if isinstance(model, str) and model == "zoo:*" else [model])]


def load_candidate(model: Model, data: Dataset) -> Network:
    """A model that is asked about data, with its outputs in the order of the data's classes."""
    network = (
        load_model(copy.deepcopy(model), channels=data.channels)
        if isinstance(model, nn.Module)
        else load_model(model, classes=data.classes, channels=data.channels, image_size=data.image_size)
    )
    if data.classes and network.classes != data.classes:
        network.reorder(data.classes)
    return network


def best_device() -> str:
    """Where models are asked."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def labelled_part(data: Dataset | Ratings, part: str) -> Split:
    """The part "test", "heldout" or "train" of the data.

    Raises:
        UserError: when there is none, or it has no labels.
    """
    split = {"test": data.test, "heldout": lambda: data.heldout, "train": lambda: data.train}[part]()
    if split is None or split.labels is None:
        raise UserError(f"{data.name} has no labelled part '{part}': use another --part")
    return split
