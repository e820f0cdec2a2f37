"""What labels teach, whether they are classes or numbers."""

from torch import Tensor

from osmose.losses.cross_entropy import cross_entropy
from osmose.losses.squared_error import squared_error


def label_loss(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy with classes; of networks that give one number, [n, 1], the mean squared error.

    Args:
        logits: [n, c], any floating dtype.
        labels: int64 [n] classes, float [n, c] where samples are mixed, or float [n] numbers.
        smoothing: of the cross-entropy.

    Returns:
        A scalar.
    """
    if logits.shape[-1] == 1:
        return squared_error(logits, labels)
    return cross_entropy(logits, labels, smoothing=smoothing)
