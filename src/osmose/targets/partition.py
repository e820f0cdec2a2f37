"""Data partitioning: each sample is taught by whoever knows it best (arXiv 2310.17653, eq 4)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from osmose.targets.choice import Choice


def partition(initial: Tensor, teachers: Sequence[Tensor] | Tensor, labels: Tensor | None = None) -> Choice:
    """Give each sample to the network with the highest probability of its class; a tie goes to the earlier one.

    With one teacher this is m_t = 1[softmax_y(z_t) > softmax_y(z_st)] of eq 4; with several it is the paper's parallel transfer.
    Where networks give one number, it goes to the one that is nearest to the label.

    Args:
        initial: logits [n, c] of the initial student (the paper's student-teacher).
        teachers: logits [n, c] of the teacher, or a list with those of several.
        labels: int64 [n] true classes, or float32 [n] where c is 1; None goes by confidence, the highest probability of any
            class, without labels.

    Returns:
        The chosen logits and their sources.
    """
    candidates = torch.stack([initial, *([teachers] if isinstance(teachers, Tensor) else teachers)])
    probabilities = candidates.float().softmax(-1)
    if labels is None:
        knows = probabilities.amax(-1)
    elif labels.is_floating_point() and candidates.shape[-1] == 1:
        knows = -(candidates.squeeze(-1) - labels).abs()
    else:
        knows = probabilities.gather(-1, labels.expand(len(candidates), -1).unsqueeze(-1)).squeeze(-1)
    source = best_of(knows.unbind())
    rows = torch.arange(source.numel(), device=source.device)
    return Choice(candidates[source, rows], source)


def best_of(knows: Sequence[Tensor]) -> Tensor:
    """int64 [n]: which candidate knows each sample best, from how well each knows it [n]; a tie goes to the earlier one."""
    best = knows[0]
    source = torch.zeros_like(best, dtype=torch.int64)
    for number, candidate in enumerate(knows[1:], start=1):
        better = candidate > best
        source = source.masked_fill(better, number)
        best = torch.where(better, candidate, best)
    return source
