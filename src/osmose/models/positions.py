"""Learned positions of a grid of tokens, for another grid."""

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
    image = positions.T.unflatten(1, grid).unsqueeze(0)
    return F.interpolate(image, to, mode="bicubic", align_corners=False).flatten(2).squeeze(0).T
