"""Divergences between a student's and a target's temperature-softened class distributions."""

import torch.nn.functional as F
from torch import Tensor

from osmose.losses.precision import widened


def kl_divergence(student: Tensor, target: Tensor, *, temperature: float = 1.0, keep: Tensor | None = None) -> Tensor:
    """T^2/n * sum_i KL(softmax(target_i / T) || softmax(student_i / T)): arXiv 2310.17653, eq 1, and Hinton et al. 2015.

    The target distribution comes first ("forward" KL). Its gradient in the student's logits is T/n * (p_student - p_target).

    Args:
        student: logits [n, c], any floating dtype; computed in float32 or wider.
        target: logits [n, c] of whoever teaches; no gradient is taken through them by this function's callers.
        temperature: T.
        keep: booleans [n]; the mean is over the samples kept, and zero when none is.

    Returns:
        A scalar.
    """
    student, target = _softened(student, target, temperature)
    if keep is None:
        divergence = F.kl_div(student, target, reduction="batchmean", log_target=True)
        return divergence if temperature == 1 else temperature**2 * divergence
    divergence = F.kl_div(student, target, reduction="none", log_target=True).sum(-1)
    return temperature**2 * _mean(divergence, keep)


def soft_cross_entropy(
    student: Tensor, target: Tensor, *, temperature: float = 1.0, keep: Tensor | None = None
) -> Tensor:
    """T^2/n * sum_i -sum_c p_target(c) log p_student(c) (arXiv 2310.17653, appendix): `kl_divergence` plus the target's entropy.

    Arguments and result as for `kl_divergence`; the gradient is the same.
    """
    student, target = _softened(student, target, temperature)
    return temperature**2 * _mean(-(target.exp() * student).sum(-1), keep)


def _softened(student: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    student, target = widened(student), widened(target)
    if temperature != 1:
        student, target = student / temperature, target / temperature
    return F.log_softmax(student, dim=-1), F.log_softmax(target, dim=-1)


def _mean(values: Tensor, keep: Tensor | None) -> Tensor:
    if keep is None:
        return values.mean()
    return values.where(keep, values.new_zeros(())).sum() / keep.sum().clamp(min=1)
