"""One augmentor after another."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from osmose.augmentors.augmentor import Augmentor
from osmose.errors import UserError


class Chain(Augmentor):
    """Each augmentor changes what the one before it made, for example a generator and then an affine one (HARD-VAE-Affine).

    Args:
        parts: the augmentors in order.

    Raises:
        UserError: when one of them trains in the student's own step, as `mix` does.
    """

    def __init__(self, parts: Sequence[Augmentor]) -> None:
        super().__init__()
        if any(part.joint for part in parts):
            raise UserError(
                "augmentor mix trains in the student's own step and cannot be part of a chain: use it alone"
            )
        self.parts = nn.ModuleList(parts)

    def fit(self, shape: tuple[int, ...]) -> None:
        super().fit(shape)
        for part in self.parts:
            assert isinstance(part, Augmentor)
            part.fit(shape)

    def learned(self) -> dict[str, nn.Parameter]:
        return {
            f"parts.{number}.{name}": parameter
            for number, part in enumerate(self.parts)
            if isinstance(part, Augmentor)
            for name, parameter in part.learned().items()
        }

    def rates(self) -> list[tuple[list[nn.Parameter], float]]:
        return [group for part in self.parts if isinstance(part, Augmentor) for group in part.rates()]

    def description(self) -> Any:
        found = [part.description() for part in self.parts if isinstance(part, Augmentor)]
        return None if None in found else found

    def quantities(self, count: int) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for part in self.parts:
            assert isinstance(part, Augmentor)
            found |= part.quantities(count)
        return found

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x
