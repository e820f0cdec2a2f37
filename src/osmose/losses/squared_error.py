"""The mean squared error of numbers, where networks give one number a sample and no classes."""

from torch import Tensor

from osmose.losses.precision import widened


def squared_error(student: Tensor, target: Tensor, *, temperature: float = 1.0, keep: Tensor | None = None) -> Tensor:
    """1/n * sum_i (student_i - target_i)^2, the counterpart of `kl_divergence`.

    Args:
        student: outputs [n, 1], any floating dtype; computed in float32 or wider.
        target: outputs [n, 1] of whoever teaches, or true values [n].
        temperature: without meaning here.
        keep: booleans [n]; the mean is over the samples kept, and zero when none is.

    Returns:
        A scalar.
    """
    errors = (widened(student).flatten() - widened(target).flatten()).square()
    if keep is None:
        return errors.mean()
    return errors.where(keep, errors.new_zeros(())).sum() / keep.sum().clamp(min=1)
