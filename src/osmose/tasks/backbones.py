"""Images without labels: networks whose features are learned, and read by neighbours and by linear classifiers."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import torch
from lightning_fabric import Fabric
from torch import nn

from osmose.data.batch import Batch
from osmose.data.crops import Crops
from osmose.data.dataset import Dataset, load_data
from osmose.data.feed import CropFeed, LoaderFeed, ViewFeed
from osmose.data.loader import Loader
from osmose.data.sources import find
from osmose.engine.method import Method
from osmose.errors import UserError
from osmose.evaluate.features import features
from osmose.models import load_model
from osmose.models.backbones import Backbones
from osmose.models.model import Model, Preprocessing
from osmose.models.network import Network, last_linear
from osmose.pair_check import check_input
from osmose.recipe import Data, Recipe
from osmose.tasks.images import check_models, some_images
from osmose.tasks.measure_backbones import HeldOutNeighbours, measure
from osmose.tasks.networks import NetworkTask
from osmose.tasks.task import Measured, Modules, Products, placed
from osmose.weights import read_about


@dataclass
class BackboneTask(NetworkTask):
    """The task of methods that train `Backbones`."""

    data: Dataset
    student: Backbones  # type: ignore[assignment]
    initial: Backbones  # type: ignore[assignment]
    teachers: dict[str, Network]

    @classmethod
    def gather(cls, recipe: Recipe, modules: Modules, products: Products) -> Self:
        assert isinstance(recipe.data, Data)
        data = load_data(**vars(recipe.data))
        seen = recipe.view.sizes(data.image_size)[0] if isinstance(recipe.view, Crops) else data.image_size
        wanted: dict[str, Any] = {"channels": data.channels, "image_size": seen, "seed": recipe.seed}
        networks = []
        for number, name in enumerate(recipe.students):
            again = recipe.students[:number].count(name)
            stream = f"student{f'#{again}' if again else ''}/init"
            given = modules.get(_role(recipe, number), name)
            network = _headless(given, products, stream=stream, **wanted)
            network.name = name
            network.preprocessing = _of_crops(network, seen, data.image_size)
            networks.append(network)
        teachers = {
            role: load_model(
                copy.deepcopy(modules[role]) if role in modules else placed(name, products),
                stream=f"{role}/init", num_classes=data.num_classes, **wanted,
            )
            for role, name in recipe.roles.items()
        }  # fmt: skip
        assert not any(network.num_classes for network in networks), "backbones have no classifier"
        student = Backbones(networks)
        return cls(recipe, data, student, copy.deepcopy(student), teachers, [], modules)

    @classmethod
    def check_names(cls, recipes: Sequence[Recipe]) -> None:
        for data in dict.fromkeys(recipe.data.name for recipe in recipes):
            find(data)
        check_models(recipes)

    @classmethod
    def product(cls, recipe: Recipe, folder: Path, modules: Modules) -> Backbones:
        networks = []
        for number in range(len(recipe.students)):
            role = _role(recipe, number)
            path = folder / f"{role}.safetensors"
            if role in modules:
                found = Preprocessing.of(read_about(path)["preprocessing"])
                network = _headless(modules[role], {}, channels=found.channels)
                network.preprocessing = found
                network.restore(path)
                networks.append(network)
            else:
                networks.append(load_model(f"file:{path}"))
        return Backbones(networks)

    def speakers(self) -> dict[str, Any]:
        return dict(self.teachers)

    def members(self, student: Model) -> dict[str, Model]:
        assert isinstance(student, Backbones)
        return dict(student.members)

    def check(self, method: Method) -> list[str]:
        recipe, data = self.recipe, self.data
        self.refuse_keys_of_text()
        name, needs = recipe.method["name"], method.needs()
        if "teacher" in needs and not self.teachers:
            raise UserError(f"method {name} needs a teacher: give --teacher")
        for key, given in (
            ("blend", recipe.blend.name != "none"),
            ("corruptions", bool(recipe.corruptions)),
            ("teacher", bool(recipe.teacher) and "teacher" not in needs),
        ):
            if given:
                raise UserError(f"method {name} has no use for key '{key}': leave it out")
        if data.task == "regression" or data.train.inputs.read(torch.arange(1)).dtype != torch.uint8:
            raise UserError(f"method {name} learns from images, and {data.name} has numbers: give images")
        crops = recipe.view if isinstance(recipe.view, Crops) else None
        if crops and "two global crops" in needs and crops.globals < 2:
            raise UserError("view.globals is 1, and the method compares two global crops: set 2")
        if crops and "local crops" in needs and not crops.locals:
            raise UserError(
                f"view.locals is 0, and method {name} as it is set asks by local crops: set view.locals to 1 or more"
            )
        notes = []
        for who, network in (
            *(("student", one) for one in self.student.members.values()), *(("teacher", one) for one in self.teachers.values())
        ):  # fmt: skip
            notes += check_input(f"{who} {network.name}", network, data)
        idle = [f"view.{key}" for key in recipe.view.without_effect(data.channels)]
        if idle:
            notes.append(f"{', '.join(idle)}: without effect on images of one channel")
        if data.train.labels is None:
            return [
                *notes,
                f"{data.name} is without labels: nothing says how good the features are until some are given",
            ]
        if data.num_classes == 1:
            notes.append(
                f"all images of {data.name} are of one class, so numbers read by labels say nothing: give data.labelled false"
            )
        if find_spec("sklearn") is None:
            notes.append("the report shows no map of the features: that needs the extra 'study'")
        return [*notes, f"the labels of {data.name} are read to evaluate, not to train"]

    def feed(self, loader: Loader, device: torch.device) -> LoaderFeed:
        if isinstance(self.recipe.view, Crops):
            return CropFeed(loader, self.recipe.view, device)
        return ViewFeed(loader, self.recipe.view, device, self.recipe.blend, self.data.num_classes)

    def score(self, student: Callable[[], Any], fabric: Fabric) -> Callable[[], dict[str, float]] | None:
        heldout, train = self.data.heldout, self.data.train
        if heldout is None or heldout.labels is None or train.labels is None:
            return None
        return HeldOutNeighbours(student, train, heldout, fabric)

    def measure(self, students: Mapping[str, Backbones], device: torch.device) -> Measured:
        return measure(self.recipe, self.data, self.initial, students, device)

    def few(self, device: torch.device) -> Batch:
        return some_images(self.data, device)

    def seconds_of_evaluation(self) -> float:
        split = self.data.heldout
        if split is None or split.labels is None:
            return 0.0
        started = time.monotonic()
        some = split.subset(torch.arange(min(250, len(split))))
        for network in self.student.members.values():
            features(network, some)
        asked = sum(HeldOutNeighbours.sizes(self.data.train, split))
        return (time.monotonic() - started) * asked / len(some)


def _role(recipe: Recipe, number: int) -> str:
    return "student" if len(recipe.students) == 1 else f"student{number + 1}"


def _of_crops(network: Network, seen: tuple[int, int], images: tuple[int, int]) -> Preprocessing:
    """What a network expects that trains on crops of a size: one that takes any is evaluated at the size of its crops."""
    assert network.preprocessing is not None, "of images"
    any_size = network.preprocessing.size is None and seen != images
    return replace(network.preprocessing, size=seen) if any_size else network.preprocessing


def _headless(name: Any, products: Products, **wanted: Any) -> Network:
    """A network by name, or a module, without a classifier."""
    if not isinstance(name, str):
        network = load_model(copy.deepcopy(name), channels=wanted["channels"])
        if hasattr(network.body, "reset_classifier"):
            network.body.reset_classifier(0)
        elif network.num_classes:
            network.body.set_submodule(last_linear(network.body), nn.Identity())
        return Network(
            network.body, name=network.name, architecture=network.architecture, preprocessing=network.preprocessing,
            classes=None, num_classes=0,
        )  # fmt: skip
    name = placed(name, products)
    if ":" in name and not name.startswith(("fresh:", "head:")):
        name = f"head:{name}"
    return load_model(name, num_classes=0, **wanted)
