"""Noise-contrastive estimation: telling the other network's embedding of the same sample from those of other samples."""

import torch.nn.functional as F
from torch import Tensor


def noise_contrast(positive: Tensor, negatives: Tensor, valid: Tensor, *, log_z: Tensor, rows: int) -> Tensor:
    """-log h(positive) - sum over negatives of log(1 - h), with h = P / (P + m / N) and P = exp(score) / Z (arXiv 1910.10699).

    The mean over the samples that have at least one negative; zero when none has.

    Args:
        positive: [n] scores, cosines over a temperature.
        negatives: [n, k] scores.
        valid: booleans [n, k]: which negatives count; m is their number in each row.
        log_z: the logarithm of Z, a scalar.
        rows: N, from how many embeddings the negatives are drawn.

    Returns:
        A scalar.
    """
    drawn = valid.sum(-1)
    offset = log_z + (drawn.clamp(min=1) / rows).log()  # log h / (1 - h) = score - offset
    missed = F.softplus(offset - positive)
    mistaken = F.softplus(negatives - offset.unsqueeze(-1)).where(valid, negatives.new_zeros(())).sum(-1)
    counts = drawn > 0
    return ((missed + mistaken) * counts).sum() / counts.sum().clamp(min=1)
