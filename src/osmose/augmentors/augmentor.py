"""What a learned augmentation is."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from osmose.weights import write_weights


class Augmentor(nn.Module, ABC):
    """Changes a batch of inputs at random, differentiably in the inputs and in its own parameters.

    Random numbers come from torch's global generators, which the method that trains it sets. A subclass's keyword-only arguments
    are its section of the recipe.
    """

    suffix: ClassVar[str] = ".safetensors"
    """How the names of its files end."""
    joint: ClassVar[bool] = False
    """Whether it trains in the student's own step, through a gradient reversal and without the invariance term."""
    group: int = 1
    """Inputs that are blended into one output."""
    section: Any = None
    """The recipe's section that it was made from; None where it was given as an object."""
    shape: tuple[int, ...] = ()
    """The shape of one input, once `fit` was called."""

    def fit(self, shape: tuple[int, ...]) -> None:
        """Make the parameters that depend on the shape of one input; called once, before training.

        Raises:
            UserError: when the augmentor does not fit such inputs.
        """
        self.shape = shape

    def learned(self) -> dict[str, nn.Parameter]:
        """The parameters that train, by name."""
        return dict(self.named_parameters())

    def rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """The same in groups, each with its learning rate over that of the augmentor's optimiser."""
        return [(list(self.learned().values()), 1.0)]

    def quantities(self, count: int) -> dict[str, Tensor]:
        """What people may want to follow while it learns: `count` draws [count] of each quantity by name, with its unit."""
        return {}

    def description(self) -> Any:
        """The section that `load_augmentor` builds it from again; None where that cannot be done."""
        return self.section

    def save(self, path: Path, **metadata: Any) -> None:
        """Write what `load_augmentor` needs to build it again; whole or not at all.

        Args:
            path: the file.
            metadata: further values to keep beside the weights, each one JSON.

        Raises:
            UserError: when the file cannot be written.
        """
        write_weights(path, self.state_dict(), {**metadata, "augmentor": self.description(), "shape": self.shape})

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Augmented inputs, float32 [n / group, ...], from x, float32 [n, ...]; images are [n, C, H, W] in [0, 1]."""
