"""What every model has: a body, a name, a digest, and a way onto the disk and back."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from osmose.errors import UserError
from osmose.weights import digest, read_weights, write_weights


class Model(nn.Module, ABC):
    """A body with what is to be known of it, which can be written to disk and told from others.

    Args:
        body: the module that computes.
        name: how the user calls it, for example "zoo:cnn-s".
        architecture: what rebuilds the body: "source", "name" and "arguments", all JSON; None: it cannot be rebuilt.
    """

    body: Any
    suffix: ClassVar[str] = ".safetensors"
    """How the names of its files end; empty where it is saved as a folder."""

    def __init__(self, body: nn.Module, *, name: str, architecture: dict[str, Any] | None) -> None:
        super().__init__()
        self.body = body
        self.name = name
        self.architecture = architecture

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device

    @property
    def size(self) -> int:
        """How many parameters it has."""
        return sum(parameter.numel() for parameter in self.parameters())

    @abstractmethod
    def answer(self, x: Tensor) -> Tensor:
        """What evaluation asks of inputs [B, ...]: float32 [B, ...]."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What makes its answers besides the weights, in JSON; part of the digest."""

    def save(self, path: str | Path, **metadata: Any) -> None:
        """Write the weights as safetensors with all that `file:PATH` needs; whole or not at all.

        Args:
            path: the file.
            metadata: further values to keep beside the weights, each one JSON.

        Raises:
            UserError: when the file cannot be written.
        """
        write_weights(Path(path), self.body.state_dict(), metadata | self.about())

    def saved(self, path: Path) -> bool:
        """Whether `save` has written to `path`."""
        return path.exists()

    def quiet(self) -> None:
        """Called before it is measured: what only training asked it for is asked no more."""

    def settle(self) -> None:
        """Called once, after the last step: what only training needs is folded into the weights."""

    def restore(self, path: Path) -> None:
        """Take the weights of the same body that `save` wrote to `path`.

        Raises:
            UserError: when they cannot be read.
        """
        self.body.load_state_dict(read_weights(path)[0])

    def about(self) -> dict[str, Any]:
        """What stands beside the weights on disk; each value is JSON."""
        return {"name": self.name, "architecture": self.architecture, "digest": self.digest()}

    def digest(self) -> str:
        """SHA-256 over every parameter's and buffer's name, shape, dtype and bytes, and over the facts."""
        return digest(self, dumps(self.facts(), sort_keys=True).encode())


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What a network expects of images in [0, 1].

    Args:
        mean: mean of each channel, subtracted.
        std: deviation of each channel, divided by.
        channels: number of channels.
        size: the only height and width the network takes; None: any.
        crop_ratio: side of the central crop over the side of the resized image (timm's crop_pct).
        interpolation: how images are resized: "bicubic"; any other is taken as bilinear.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int
    size: tuple[int, int] | None = None
    crop_ratio: float = 1.0
    interpolation: str = "bilinear"

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """That of which `plain` is the JSON."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()
        }
        return cls(**values)

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == self.channels:
            raise UserError(
                f"mean {self.mean} and std {self.std} do not fit {self.channels} channels: give one number a channel"
            )


class Predictor(Model):
    """A model that answers each sample with a row of numbers.

    Args:
        body: the module that computes.
        name: how the user calls it.
        architecture: as for `Model`.
        preprocessing: what the body expects of images; None: its inputs are whole numbers, such as a user's and an item's, which
            it takes as they are.
    """

    def __init__(
        self, body: nn.Module, *, name: str, architecture: dict[str, Any] | None, preprocessing: Preprocessing | None
    ) -> None:
        super().__init__(body, name=name, architecture=architecture)
        self.preprocessing = preprocessing

    @property
    @abstractmethod
    def width(self) -> int:
        """How many numbers it answers a sample with."""

    @abstractmethod
    def answer(self, x: Tensor) -> Tensor:
        """What evaluation asks of images [B, C, H, W] in [0, 1], or of whole numbers [B, ...]: float32 [B, width]."""

    def facts(self) -> dict[str, Any]:
        """The preprocessing."""
        return asdict(self.preprocessing) if self.preprocessing else {}

    def about(self) -> dict[str, Any]:
        """What stands beside the weights in its file; each value is JSON."""
        return super().about() | {"preprocessing": self.facts() or None}


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Inside the block the models are in evaluation mode and no gradients are kept; then every module has its own mode again."""
    was_training = [module for model in models for module in model.modules() if module.training]
    for model in models:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in was_training:
            module.training = True
