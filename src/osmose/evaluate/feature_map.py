"""Features in the plane, for people to look at: t-SNE (van der Maaten and Hinton 2008)."""

import torch
from torch import Tensor

_FEW = 10
"""Samples of which fewer make no map."""


def feature_map(features: Tensor) -> Tensor | None:
    """Places [n, 2] of features [n, D] in which neighbours stay neighbours.

    None of few samples, without scikit-learn, and where there is nothing to lay out: of one feature, or of samples that are
    all alike, as a collapsed network has them.
    """
    if len(features) < _FEW or features.shape[1] < 2 or (features == features[0]).all():
        return None
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        return None
    perplexity = min(30.0, (len(features) - 1) / 3)
    return torch.from_numpy(TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features.numpy()))
