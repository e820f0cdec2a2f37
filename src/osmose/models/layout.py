"""States of networks as rows of tokens, whatever they are: feature maps, tokens, vectors."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, Self

import torch
from torch import Tensor

from osmose.errors import UserError


@dataclass(frozen=True)
class Layout:
    """How the state of a layer is laid out.

    Attributes:
        kind: a vector [B, E]; tokens [B, N, E]; a map [B, E, H, W]; or a map whose channels come last [B, H, W, E].
        width: E, channels of a token.
        count: N, how many tokens a sample has; of a map its places, row by row; of a vector one.
        grid: height and width where the tokens, but for those in front, are places of an image; None where they are not.
        front: tokens before the grid, such as a class token.
    """

    kind: Literal["vector", "tokens", "map", "channels-last"]
    width: int
    count: int
    grid: tuple[int, int] | None
    front: int = 0

    @classmethod
    def of(
        cls,
        state: Tensor,
        *,
        channels_last: bool = False,
        where: str = "state",
        image: tuple[int, int] | None = None,
        front: int | None = None,
    ) -> Self:
        """The layout of a state.

        Args:
            state: of any batch.
            channels_last: whether maps have their channels last.
            where: whose it is, for an error.
            image: height and width of the images that tokens are of; None takes them for square.
            front: tokens before the grid, if there are any; None finds out, where a class token and registers may be.

        Raises:
            UserError: when it is none of these.
        """
        if state.dim() == 2:
            return cls("vector", state.shape[1], 1, (1, 1))
        if state.dim() == 3:
            count = state.shape[1]
            tried = (0, 1, 2, 5) if front is None else (front, 0)  # a class token may join behind this layer
            grids = ((n, _grid(count - n, image or (1, 1))) for n in tried if count > n)
            found, grid = next(((n, grid) for n, grid in grids if grid), (front or 0, None))
            return cls("tokens", state.shape[2], count, grid, found)
        if state.dim() == 4 and channels_last:
            return cls(
                "channels-last", state.shape[3], state.shape[1] * state.shape[2], (state.shape[1], state.shape[2])
            )
        if state.dim() == 4:
            return cls("map", state.shape[1], state.shape[2] * state.shape[3], (state.shape[2], state.shape[3]))
        raise UserError(
            f"{where} has shape {list(state.shape)}: name a layer that gives a vector, tokens or a feature map"
        )

    def tokens(self, state: Tensor) -> Tensor:
        """A state as tokens [B, N, E]."""
        if self.kind == "vector":
            return state.unsqueeze(1)
        if self.kind == "map":
            return state.flatten(2).transpose(1, 2)
        return state.flatten(1, 2) if self.kind == "channels-last" else state

    def places(self) -> "Layout":
        """The layout of the tokens of the grid alone."""
        return replace(self, kind="tokens", count=self.count - self.front, front=0)

    def state(self, tokens: Tensor) -> Tensor:
        """The state that tokens [B, N, E] are."""
        if self.kind == "vector":
            return tokens.squeeze(1)
        if self.kind == "tokens":
            return tokens
        assert self.grid is not None
        whole = tokens.unflatten(1, self.grid)
        return whole.permute(0, 3, 1, 2) if self.kind == "map" else whole

    def spread(self, tokens: Tensor, to: "Layout") -> Tensor:
        """Tokens [B, N, D] of this layout, of any width D, as tokens of another one [B, N', D].

        Where both have as many, on one grid if on any, they are the same. Otherwise grids are averaged, or interpolated, to the
        other size. Tokens in front stay what they are where both have as many; otherwise those of the other layout get the mean
        of all. Without grids every token gets it.
        """
        if (self.count, self.grid or to.grid) == (to.count, to.grid or self.grid):
            return tokens
        mean = tokens.mean(1, keepdim=True)
        if self.grid is None or to.grid is None:
            return mean.expand(-1, to.count, -1)
        image = tokens[:, self.front :].unflatten(1, self.grid)
        down, across = (_resized(*sides, tokens.dtype, tokens.device) for sides in zip(self.grid, to.grid, strict=True))
        places = torch.einsum("pi,qj,bijd->bpqd", down, across, image).flatten(1, 2)
        if not to.front:
            return places
        front = tokens[:, : self.front] if self.front == to.front else mean.expand(-1, to.front, -1)
        return torch.cat([front, places], 1)


def _grid(count: int, image: tuple[int, int]) -> tuple[int, int] | None:
    """Height and width of so many square patches that cover an image, the last ones perhaps in part; None where none do."""
    height, width = image
    if height == width:
        side = math.isqrt(count)
        return (side, side) if side * side == count else None
    for patch in range(1, max(image) + 1):
        for grid in ((-(-height // patch), -(-width // patch)), (height // patch, width // patch)):
            if grid[0] * grid[1] == count:
                return grid
    return None


@lru_cache(maxsize=64)
def _resized(before: int, after: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Weights [after, before] that average places along an axis, or interpolate linearly between their centres."""
    weights = torch.zeros(after, before, dtype=dtype)
    for place in range(after):
        if after <= before:
            first, end = place * before // after, -(-(place + 1) * before // after)
            weights[place, first:end] = 1 / (end - first)
        else:
            centre = min(max((place + 0.5) * before / after - 0.5, 0.0), before - 1.0)
            left = min(int(centre), before - 1)
            weights[place, left] += 1 - (centre - left)
            weights[place, min(left + 1, before - 1)] += centre - left
    return weights.to(device)
