"""Learned positions of a grid of tokens, for another grid."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


def resized_positions(positions: Tensor, grid: tuple[int, int], to: tuple[int, int]) -> Tensor:
    """Positions [N, D] of a grid, row by row, as those of another one [N', D], by bicubic interpolation.

    Args:
        positions: N = height x width vectors.
        grid: their height and width.
        to: height and width of the grid that is wanted.
    """
    if grid == to:
        return positions
    with torch.autocast(positions.device.type, enabled=False):  # as wide as those of their own grid
        return _weights(grid, to, positions.device) @ positions


@cache
def _weights(grid: tuple[int, int], to: tuple[int, int], device: torch.device) -> Tensor:
    """What each place takes of each other one, [N', N]: the interpolation is linear, and a product is deterministic on GPUs."""
    places = torch.eye(grid[0] * grid[1]).unflatten(1, grid).unsqueeze(0)
    return F.interpolate(places, to, mode="bicubic", align_corners=False).flatten(2).squeeze(0).T.to(device)
