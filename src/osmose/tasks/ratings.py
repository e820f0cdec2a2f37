"""Ratings of items by users."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from lightning_fabric import Fabric
from torch import Tensor

from osmose.data.batch import Batch
from osmose.data.feed import PlainFeed
from osmose.data.loader import Loader
from osmose.data.ratings import Ratings, find_ratings, load_ratings
from osmose.data.split import Split
from osmose.engine.method import Method
from osmose.errors import UserError, first_line
from osmose.evaluate import outcomes, predict
from osmose.evaluate.heldout import HeldOutRatings
from osmose.evaluate.ratings import error_by_genre, root_mean_square
from osmose.models import load_model
from osmose.models.model import Predictor, evaluating
from osmose.models.network import Network
from osmose.recipe import RatingData, Recipe
from osmose.tasks.networks import NetworkTask
from osmose.tasks.task import Measured, Modules, Products, placed, result_numbers
from osmose.weights import read_weights

_FEW = 8
"""Samples that are enough to tell what a network costs."""


@dataclass
class RatingTask(NetworkTask):
    """The task of methods that train a `Network` on ratings."""

    data: Ratings
    student: Network
    initial: Network

    @classmethod
    def gather(cls, recipe: Recipe, modules: Modules, products: Products) -> Self:
        assert isinstance(recipe.data, RatingData)
        data = load_ratings(**vars(recipe.data))

        def load(role: str, name: str) -> Network:
            given = copy.deepcopy(modules[role]) if role in modules else placed(name, products)
            return load_rating_network(given, data, seed=recipe.seed, stream=f"{role}/init")

        (name,) = recipe.students
        student = load("student", name)
        teachers = {role: load(role, name) for role, name in recipe.roles.items()}
        return cls(recipe, data, student, copy.deepcopy(student), teachers, [], modules)

    @classmethod
    def check_names(cls, recipes: Sequence[Recipe]) -> None:
        for data in dict.fromkeys(recipe.data.name for recipe in recipes):
            find_ratings(data)

    @classmethod
    def product(cls, recipe: Recipe, folder: Path, modules: Modules) -> Network:
        path = folder / "student.safetensors"
        if "student" not in modules:
            return load_model(f"file:{path}")
        student = load_model(copy.deepcopy(modules["student"]), ratings={})
        student.body.load_state_dict(read_weights(path)[0])
        student.num_classes = 1
        return student

    def check(self, method: Method) -> list[str]:
        self.refuse_keys_of_images()
        self.refuse_keys_of_text()
        needs = method.needs()
        for network in (self.student, *(self.teachers.values() if "same outputs" in needs else ())):
            check_answer(network, self.data)
        if "images" in needs or "same classes" in needs:
            what = "classes" if "same classes" in needs else "images"
            raise UserError(
                f"method {self.recipe.method['name']} needs {what} and {self.data.name} has ratings: use method distill"
            )
        if "teacher" in needs and not self.teachers:
            raise UserError("the method needs a teacher: give --teacher file:RUN")
        if self.recipe.signals.top_k:
            raise UserError(f"key 'signals.top_k' keeps classes, and {self.data.name} has ratings: leave it out")
        notes = [f"{len(self.data.train)} ratings to train on, {len(self.data.heldout or ())} held out"]
        for network in (self.student, *self.teachers.values()):
            if _tables(network) is None:
                notes.append(f"'{network.name}' does not say which ratings it has seen: none may be of the test part")
        return notes

    def feed(self, loader: Loader, device: torch.device) -> PlainFeed:
        return PlainFeed(loader, device)

    def score(self, student: Callable[[], Predictor], fabric: Fabric) -> Callable[[], dict[str, float]] | None:
        heldout = self.data.heldout
        return None if heldout is None else HeldOutRatings(self.initial, student, heldout, fabric)

    def measure(self, students: Mapping[str, Network], device: torch.device) -> Measured:
        teachers = {role: one for role, one in self.teachers.items() if one.num_classes == 1}
        models: dict[str, Network] = {"before": self.initial, **teachers, **students}
        parts = {"test": self.data.test(), **({"heldout": self.data.heldout} if self.data.heldout else {})}
        measured = {}
        for part, split in parts.items():
            errors = {role: outcomes(one, predict(one.to(device), split), split) for role, one in models.items()}
            measured[part] = {student: self._numbers(errors, student, split) for student in students}
        unit = "root mean squared error in stars"
        return Measured(result_numbers(self.recipe, unit, measured["test"], measured.get("heldout", {})))

    def _numbers(self, errors: Mapping[str, Tensor], student: str, split: Split) -> dict[str, Any]:
        """The numbers on one part, for one of the students, from everyone's squared errors."""
        before, after = errors["before"], errors[student]
        teachers = {role: errors[role] for role in self.teachers if role in errors}
        shown = {"before": before, "after": after, **teachers}
        return {
            "ratings": len(split),
            "rmse_before": root_mean_square(before),
            "rmse_after": root_mean_square(after),
            "nearer": 100 * (after < before).double().mean().item(),
            "farther": 100 * (after > before).double().mean().item(),
            **{role: {"rmse": root_mean_square(found)} for role, found in teachers.items()},
            "by_genre": error_by_genre(shown, split, self.data.features, self.data.genres),
        }

    def few(self, device: torch.device) -> Batch:
        few = self.data.train.subset(torch.arange(min(_FEW, len(self.data.train))))
        return Batch(index=few.index, view=None, x=few.inputs.read(torch.arange(len(few))).to(device), y=few.labels)


def load_rating_network(name: Any, data: Ratings, *, seed: int = 0, stream: str = "student/init") -> Network:
    """A network of ratings by name, or a module, that fits some data.

    Raises:
        UserError: when it cannot be loaded, takes other inputs, or is of other users and items.
    """
    assert data.train.labels is not None
    facts = {
        "users": len(data.users),
        "items": len(data.features),
        "genres": len(data.genres),
        "features": data.features,
        "tables": data.tables,
        "mean": float(data.train.labels.mean()),
    }
    network = load_model(name, ratings=facts, seed=seed, stream=stream)
    if network.preprocessing is not None:
        raise UserError(
            f"'{network.name}' takes images, and {data.name} has ratings: use fresh:ratings:two-tower, or file:RUN of one"
        )
    if _tables(network) not in (None, data.tables):
        raise UserError(
            f"'{network.name}' was made for other users, items or parts than those of {data.name}, and may have seen ratings of "
            "its test part: give data.test, data.heldout and data.split_seed as it was trained with, or train it anew on these"
        )
    try:
        with evaluating(network):
            said = network(torch.tensor([[0, 0], [len(data.users) - 1, len(data.items) - 1]])).logits
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"'{network.name}' fails on users and items, int64 [B, 2] ({first_line(error)}): give a module that takes them"
        ) from error
    if network.architecture is None:
        # A module need not end in a linear layer that would tell.
        network.num_classes = said.shape[1] if said.dim() == 2 else 0
    return network


def _tables(network: Network) -> str | None:
    """Which users, items and parts a network says that it was made for; None where it does not say."""
    found: str | None = (network.architecture or {}).get("arguments", {}).get("tables")
    return found


def check_answer(network: Network, data: Ratings) -> None:
    """Raise `UserError` where a network does not answer with one number a rating."""
    sample = data.train.subset(torch.tensor([0]))
    with evaluating(network):
        rating = network(sample.inputs.read(torch.tensor([0])).to(network.device)).logits
    if rating.shape != (1, 1):
        raise UserError(
            f"'{network.name}' gives outputs of shape {list(rating.shape)} for one rating, where [1, 1] was expected: give a "
            "network that says a rating"
        )
