"""Cross-entropy between views: each target view teaches every other view (DINO, arXiv 2104.14294)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from osmose.losses.precision import widened


def view_pairs(scores: Tensor, targets: Sequence[Tensor], *, temperature: float) -> list[Tensor]:
    """For each of several targets the mean of H(target_g, softmax(scores_v / T)) over samples and all pairs of views g != v.

    The cross-entropy is linear in the target: a view is compared with the sum of its targets, and its normaliser is computed once
    for all of them.

    Args:
        scores: [V, B, K], any floating dtype, of which the first G views are those of the targets.
        targets: probabilities [G, B, K] each.
        temperature: T.

    Returns:
        A scalar for each target.
    """
    with torch.autocast(scores.device.type, enabled=False):
        scores = widened(scores) / temperature
        normaliser = scores.logsumexp(-1)
        views, samples = normaliser.shape
        losses = []
        for target in targets:
            count = len(target)
            taught = torch.full((views, 1), float(count), device=scores.device)
            taught[:count] -= 1
            agreed = torch.einsum("vbk,bk->vb", scores, target.sum(0)).sum()
            agreed = agreed - torch.einsum("vbk,vbk->", scores[:count], target)
            losses.append(((taught * normaliser).sum() - agreed) / (count * (views - 1) * samples))
        return losses


def soft_targets(scores: Tensor, target: Tensor, *, temperature: float) -> Tensor:
    """The mean of H(target, softmax(scores / T)) over rows.

    Args:
        scores: float [..., K].
        target: probabilities of the same shape.
        temperature: T.
    """
    scores = widened(scores) / temperature
    return (scores.logsumexp(-1) - (scores * target).sum(-1)).mean()
