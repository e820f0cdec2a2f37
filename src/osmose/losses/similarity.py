"""How alike a network finds the samples of a batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from osmose.losses.precision import widened


def cosine_similarities(features: Tensor) -> Tensor:
    """S[i, j], the cosine between the features of samples i and j of a batch (arXiv 2310.17653, eq 6).

    Args:
        features: [n, d], any floating dtype; computed in float32 or wider.

    Returns:
        [n, n], in -1 to 1.
    """
    with torch.autocast(features.device.type, enabled=False):
        unit = F.normalize(widened(features), dim=-1)
        return unit @ unit.T
