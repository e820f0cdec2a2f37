"""How samples lie to each other (RKD, arXiv 1904.05068)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from osmose.losses.precision import widened


def distances(features: Tensor) -> Tensor:
    """[n, n]: the distances between samples, over the mean of those between different ones (eqs 4 and 5).

    Args:
        features: [n, d], any floating dtype; computed in float32 or wider.
    """
    features = widened(features)
    squares = (features[:, None] - features).square().sum(-1)
    apart = squares > 0
    found = torch.where(apart, squares, torch.ones_like(squares)).sqrt() * apart  # the root has no gradient at 0
    return found / found.sum().div(apart.sum().clamp(min=1)).clamp(min=1e-12)


def angles(features: Tensor) -> Tensor:
    """[n, n, n]: at (i, j, k) the cosine of the angle at sample i between j and k (eq 7); 0 where two of them are the same.

    Args:
        features: [n, d], any floating dtype; computed in float32 or wider.
    """
    features = widened(features)
    towards = F.normalize(features - features[:, None], dim=-1)
    with torch.autocast(features.device.type, enabled=False):
        return torch.bmm(towards, towards.transpose(1, 2))
