"""Cross-entropy with true classes."""

import torch.nn.functional as F
from torch import Tensor

from osmose.losses.precision import widened


def cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy, a scalar.

    Args:
        logits: [n, c].
        labels: classes int64 [n], or probabilities [n, c].
        smoothing: the labels become (1 - smoothing) times themselves plus smoothing / c.
    """
    return F.cross_entropy(widened(logits), labels, label_smoothing=smoothing)


def cross_entropy_of_probabilities(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """What arXiv 2310.17653's public code computes in its place: probabilities are treated as logits once more.

    softmax is taken twice, -log softmax(p')_y with p' = (1 - a) softmax(z) + a / c, so the gradient is nearly flat. Only for
    reproducing the published XE-KL numbers. Arguments as for `cross_entropy`.
    """
    probabilities = F.softmax(widened(logits), dim=-1)
    smoothed = (1 - smoothing) * probabilities + smoothing / logits.shape[-1]
    return cross_entropy(smoothed, labels)
