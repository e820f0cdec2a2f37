"""Losses: pure functions of tensors, one idea a file."""

from osmose.losses.cross_entropy import cross_entropy, cross_entropy_of_probabilities
from osmose.losses.kl import kl_divergence, soft_cross_entropy
from osmose.losses.squared_error import squared_error
from osmose.losses.top_k import top_k_logits

__all__ = [
    "cross_entropy",
    "cross_entropy_of_probabilities",
    "kl_divergence",
    "soft_cross_entropy",
    "squared_error",
    "top_k_logits",
]
