"""The contract between the engine and a way to transfer knowledge."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from osmose.augmentors.augmentor import Augmentor
from osmose.data.batch import Batch
from osmose.data.crops import Crops
from osmose.data.views import Views
from osmose.engine.clock import Clock
from osmose.engine.optimiser import Player
from osmose.models.model import Model
from osmose.models.network import Network


class Step(NamedTuple):
    """What one forward pass of a method gives to the engine.

    Attributes:
        loss: the scalar that is differentiated.
        parts: detached scalars that are logged, by name.
    """

    loss: Tensor
    parts: Mapping[str, Tensor] = {}


class Method(nn.Module, ABC):
    """One published way to transfer. It owns every network that trains; frozen ones stay outside its submodules.

    A subclass's constructor takes the networks by position, from the engine, and its settings by keyword: the keyword-only
    arguments are the recipe's section `method`, and their documentation is its help text.
    """

    trains: ClassVar[type[Model]] = Network
    """What kind of model its student is."""
    sees: ClassVar[type[Views] | type[Crops]] = Views
    """What is made of an image before its networks see it: the recipe's section `view`."""
    without_labels: ClassVar[str] = ""
    """How it can be used where there are no labels, for an error's cure."""
    summary: ClassVar[str]
    """One line for `osmose show methods`."""
    source: ClassVar[str]
    """The paper the method comes from."""

    def needs(self) -> frozenset[str]:
        """What the pair check asks of networks and data before the first step: of "teacher", "same classes", "same outputs"
        (one number from each), "labels", "whole labels" (one class a sample, not a mixture), "images" (or other inputs that may
        be changed a little), "two global crops", "local crops"."""
        return frozenset()

    def reads(self) -> Mapping[str, Collection[str]]:
        """The fields of `Outputs` that it asks `Frozen.signal` for, "states.PATH" among them, by role; known once it is made."""
        return {}

    def fit_to(self, shapes: Sequence[tuple[int, ...]], numbers: Tensor) -> None:
        """Told once, before `players`, of the training part.

        Args:
            shapes: of one sample's x, for example [(channels, height, width)]; of several crops one for each size.
            numbers: int64 [n], the samples' numbers, of which `Batch.index` has some.
        """

    def notes(self) -> Sequence[str]:
        """What the user should know before the run begins, a line each; asked after `fit_to`."""
        return ()

    def taught_by(self, teachers: Sequence[str]) -> str:
        """Who teaches, in a few words for people, given the teachers' names."""
        return " and ".join(teachers) or "labels"

    @abstractmethod
    def players(self) -> dict[str, Player]:
        """Every set of parameters that trains, by name; asked once, at the start."""

    def moving(self, clock: Clock) -> Collection[str] | None:
        """The names of the players that train at `clock`, equal on every process; None for all."""
        return None

    @abstractmethod
    def forward(self, batch: Batch, clock: Clock) -> Step:
        """The loss of one micro-batch."""

    def after_step(self, clock: Clock) -> None:
        """Called after each optimiser step with the clock at which the step was taken."""

    def draw(self, folder: Path, batch: Batch) -> None:
        """Called once, after the last step, by the first process: put pictures of what happened into `folder`.

        Args:
            folder: the run's; metrics.jsonl is there.
            batch: a few plain samples of the training part.
        """

    @abstractmethod
    def products(self) -> Mapping[str, Model | Augmentor]:
        """What the run saves: under "student" the model that stands for the student afterwards, which is evaluated too."""
