"""What a run needs to know of its data and networks."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from osmose.data.batch import Batch
from osmose.data.feed import LoaderFeed
from osmose.data.loader import Loader
from osmose.engine.method import Method
from osmose.errors import UserError
from osmose.evaluate.cost import cost
from osmose.files import write_atomically
from osmose.models.model import Model
from osmose.recipe import Recipe, product
from osmose.signals import Material, Speaker
from osmose.weights import write_weights

Modules = Mapping[str, nn.Module]
"""Networks given as modules, by role: "student", "teacher1", "teacher2", ...; and those of the method's
section by the names they have there."""
Products = Mapping[str, Path]
"""The run folders whose students the names `$NAME` in a recipe stand for."""


def placed(name: str, products: Products) -> str:
    """A model's name, in which an earlier stage's student is a file's."""
    found = product(name)
    if found is None or f"${found.stage}" not in products:
        return name
    folder = products[f"${found.stage}"]
    path = folder / f"{found.member}.safetensors" if found.member else folder
    return f"{found.way}file:{path}{found.options}"


@dataclass
class Measured:
    """Numbers, and what they were counted from.

    Attributes:
        numbers: the content of result.json.
        tensors: what is kept beside it, by file name without suffix and by name.
        texts: the same, as JSON.
    """

    numbers: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    texts: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Keep tensors and texts beside a run's result.

        Raises:
            UserError: when the files cannot be written.
        """
        for name, tensors in self.tensors.items():
            if tensors:
                write_weights(folder / f"{name}.safetensors", tensors, {})
        for name, value in self.texts.items():
            write_atomically(folder / f"{name}.json", json.dumps(value).encode())


def result_numbers(
    recipe: Recipe, unit: str, test: Mapping[str, dict[str, Any]], heldout: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """What every result begins with: what the run was, and the students' numbers on the test and the held-out part.

    Args:
        recipe: the run's recipe.
        unit: of the numbers.
        test: the numbers of "after" and, where there is one, "chosen" on the test part.
        heldout: the same on the held-out part; empty where there is none.
    """
    return {
        "student": " + ".join(recipe.students),
        "teacher": recipe.teacher,
        "data": recipe.data.name,
        "method": recipe.method["name"],
        "seed": recipe.seed,
        "unit": unit,
        **test["after"],
        "heldout": heldout.get("after"),
        "chosen": {**test["chosen"], "heldout": heldout["chosen"]} if "chosen" in test else None,
    }


@dataclass
class Task(ABC):
    """Everything that takes part in a run, and what can be done with data and networks of its kind.

    Attributes:
        recipe: the run's recipe.
        data: the data.
        student: the model that trains.
        initial: its copy from before the run.
        teachers: the teachers, by role.
        notes: what people should know of how they were brought together.
        modules: those that the method's section names.
    """

    recipe: Recipe
    data: Material
    student: Model
    initial: Model
    teachers: dict[str, Any]
    notes: list[str]
    modules: Modules

    @classmethod
    @abstractmethod
    def gather(cls, recipe: Recipe, modules: Modules, products: Products) -> Self:
        """Load a recipe's data and networks; modules take the place of the recipe's names.

        Raises:
            UserError: for what cannot be loaded.
        """

    @classmethod
    @abstractmethod
    def check_names(cls, recipes: Sequence[Recipe]) -> None:
        """Raise `UserError` for an unknown data set or model in any of them, as far as can be told without loading much."""

    @classmethod
    @abstractmethod
    def product(cls, recipe: Recipe, folder: Path, modules: Modules) -> Model:
        """The student of a finished run."""

    def speakers(self) -> dict[str, Any]:
        """Who may teach, by role."""
        return {**self.teachers, "initial": self.initial}

    @abstractmethod
    def frozen(self, network: Any, device: torch.device) -> Speaker:
        """A network of the run as one that only speaks."""

    @abstractmethod
    def check(self, method: Method) -> list[str]:
        """Do data, networks and method fit? What people should know of how they were adapted.

        Raises:
            UserError: for the first mismatch.
        """

    def refuse_keys_of_images(self) -> None:
        """Raise `UserError` where the recipe says how images are seen."""
        recipe = self.recipe
        for key, value, plain in (
            ("view", recipe.view, type(recipe.view)()),
            ("blend", recipe.blend, type(recipe.blend)()),
            ("corruptions", recipe.corruptions, []),
        ):
            if value != plain:
                raise UserError(f"key '{key}' is of images, and {self.data.name} has none: leave it out")

    def refuse_keys_of_text(self) -> None:
        """Raise `UserError` where the recipe asks for what only language models have."""
        if self.recipe.sharded:
            raise UserError("key 'sharded' is of language models: leave it out")
        if self.recipe.signals.samples:
            raise UserError("key 'signals.samples' is of language models: use signals.top_k")

    @abstractmethod
    def feed(self, loader: Loader, device: torch.device) -> LoaderFeed:
        """What deals the training part out."""

    @abstractmethod
    def score(self, student: Callable[[], Any], fabric: Fabric) -> Callable[[], dict[str, float]] | None:
        """What scores the student after each epoch on held-out samples, the first number to choose by; None without any."""

    @abstractmethod
    def measure(self, students: Mapping[str, Any], device: torch.device) -> Measured:
        """Ask everyone about the test and the held-out part: the only place that reads the test part.

        Args:
            students: "after", the student of the last epoch, whose numbers are the top level; and "chosen", that of the epoch
                with the best held-out score.
            device: where the networks run.
        """

    @abstractmethod
    def few(self, device: torch.device) -> Batch:
        """A few training samples as they are."""

    def members(self, student: Model) -> dict[str, Model]:
        """The networks that a student consists of, by role."""
        return {"student": student}

    def cost(self, model: Model) -> dict[str, Any]:
        """What a model, where it is, costs to run on one sample."""
        model.quiet()
        return cost(model, self.few(model.device).x[:1])

    @abstractmethod
    def seconds_of_evaluation(self) -> float:
        """Seconds that the score after an epoch takes, by a trial."""
