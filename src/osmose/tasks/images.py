"""Images, with classes, with numbers for labels, or to be drawn again."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from osmose.data.batch import Batch
from osmose.data.corruptions import check_available, parse
from osmose.data.dataset import Dataset, load_data
from osmose.data.feed import ViewFeed
from osmose.data.loader import Loader
from osmose.data.sources import find
from osmose.data.views import Views
from osmose.engine.method import Method
from osmose.errors import UserError
from osmose.methods import find_method
from osmose.models import load_model
from osmose.models.generator import Generator
from osmose.models.load_generator import load_generator
from osmose.models.model import Predictor
from osmose.models.network import Network
from osmose.pair_check import check_pair
from osmose.recipe import Data, Recipe, product
from osmose.tasks.measure_images import measure
from osmose.tasks.networks import NetworkTask
from osmose.tasks.task import Measured, Modules, Products, placed
from osmose.weights import read_about

_FEW = 8
"""Samples in a run's pictures."""


@dataclass
class ImageTask(NetworkTask):
    """The task of all methods that train a `Network` or a `Generator`."""

    data: Dataset
    student: Predictor
    initial: Predictor
    teachers: dict[str, Network]

    @classmethod
    def gather(cls, recipe: Recipe, modules: Modules, products: Products) -> Self:
        assert isinstance(recipe.data, Data)
        data = load_data(**vars(recipe.data))
        wanted: dict[str, Any] = {
            "classes": data.classes,
            "num_classes": data.num_classes or 1,
            "channels": data.channels,
            "image_size": data.image_size,
            "seed": recipe.seed,
        }
        notes: list[str] = []

        def load(role: str, name: str) -> Network:
            if role in modules:
                network = load_model(copy.deepcopy(modules[role]), channels=data.channels)
            else:
                network = load_model(placed(name, products), stream=f"{role}/init", **wanted)
            if data.classes and network.classes != data.classes and network.reorder(data.classes):
                notes.append(
                    f"{role} {network.name} has the classes of {data.name} in another order: its outputs are reordered"
                )
            return network

        student: Predictor
        (name,) = recipe.students
        if find_method(recipe.method["name"]).trains is Generator:
            student = load_generator(
                copy.deepcopy(modules.get("student", name)),
                channels=data.channels, image_size=data.image_size, seed=recipe.seed, stream="student/init",
            )  # fmt: skip
        else:
            student = load("student", name)
        teachers = {role: load(role, name) for role, name in recipe.roles.items()}
        return cls(recipe, data, student, copy.deepcopy(student), teachers, notes, modules)

    @classmethod
    def check_names(cls, recipes: Sequence[Recipe]) -> None:
        for data in dict.fromkeys(recipe.data.name for recipe in recipes):
            find(data)
        networks = [recipe for recipe in recipes if find_method(recipe.method["name"]).trains is Network]
        check_models(networks)

    @classmethod
    def product(cls, recipe: Recipe, folder: Path, modules: Modules) -> Predictor:
        path = folder / "student.safetensors"
        given = copy.deepcopy(modules["student"]) if "student" in modules else f"file:{path}"
        about = read_about(path)
        images = about["preprocessing"]
        student: Predictor
        if find_method(recipe.method["name"]).trains is Generator:
            student = load_generator(given, channels=images["channels"], image_size=images["size"])
        else:
            student = load_model(given, channels=images["channels"])
            student.classes = about["classes"] and tuple(about["classes"])
        if "student" in modules:
            student.restore(path)
        return student

    def speakers(self) -> dict[str, Any]:
        return super().speakers() if isinstance(self.initial, Network) else dict(self.teachers)

    def check(self, method: Method) -> list[str]:
        recipe, data = self.recipe, self.data
        self.refuse_keys_of_text()
        check_available(parse(recipe.corruptions))
        if recipe.corruptions and data.task == "regression":
            raise UserError(f"key 'corruptions' is of images with classes, {data.name} has numbers: leave it out")
        notes = []
        if isinstance(self.student, Network):
            teachers = {name: self.teachers[role] for role, name in recipe.roles.items()}
            notes += check_pair(self.student, teachers, data, method)
        if recipe.blend.mixes and "whole labels" in method.needs():
            raise UserError(
                f"blend {recipe.blend.name} mixes labels and the method asks for each sample's class: use a target that needs "
                "no labels, as teacher or partition-unsupervised, or another blend"
            )
        idle = [f"view.{key}" for key in self.views.without_effect(data.channels)]
        if idle:
            notes.append(f"{', '.join(idle)}: without effect on images of one channel")
        return notes

    @property
    def views(self) -> Views:
        """What is done to an image before networks see it."""
        assert isinstance(self.recipe.view, Views)
        return self.recipe.view

    def feed(self, loader: Loader, device: torch.device) -> ViewFeed:
        return ViewFeed(loader, self.views, device, self.recipe.blend, self.data.num_classes)

    def measure(self, students: Mapping[str, Predictor], device: torch.device) -> Measured:
        comparable = {role: one for role, one in self.teachers.items() if _knows(one, self.data)}
        return measure(self.recipe, self.data, self.initial, comparable, students, device)

    def few(self, device: torch.device) -> Batch:
        return some_images(self.data, device)


def check_models(recipes: Sequence[Recipe]) -> None:
    """Raise `UserError` for a network that none of the recipes' names is of, as far as can be told here."""
    for model in dict.fromkeys(name for recipe in recipes for name in (*recipe.students, *recipe.roles.values())):
        earlier = product(model)
        if earlier and earlier.options and not earlier.way:
            raise UserError(f"'{model}': only a language model may have options behind an earlier stage's name")
        # Weights from the hub are left to the runs, and so are the students of earlier stages.
        if "timm:" not in model and not earlier:
            load_model(model, num_classes=10)


def some_images(data: Dataset, device: torch.device) -> Batch:
    """A few training images as they are."""
    train = data.train
    few = train.subset(torch.linspace(0, len(train) - 1, min(_FEW, len(train))).long())
    x = Views.plain(few.inputs.read(torch.arange(len(few)))).to(device)
    return Batch(index=few.index, view=None, x=x, y=few.labels)


def _knows(network: Network, data: Dataset) -> bool:
    """Whether a network's answers are about the data's classes; a teacher of what its layers give need not know them."""
    same_names = not (network.classes and data.classes) or network.classes == data.classes
    return network.num_classes == (data.num_classes or 1) and same_names
