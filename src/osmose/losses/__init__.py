"""Losses: pure functions of tensors, one idea a file."""

from osmose.losses.contrast import noise_contrast
from osmose.losses.cross_entropy import cross_entropy, cross_entropy_of_probabilities
from osmose.losses.heads import Head
from osmose.losses.kl import kl_divergence, soft_cross_entropy
from osmose.losses.labels import label_loss
from osmose.losses.language import Objective, SampledTokens, States, TopTokens, distil_tokens
from osmose.losses.similarity import cosine_similarities
from osmose.losses.squared_error import squared_error
from osmose.losses.top_k import top_k_logits
from osmose.losses.view_pairs import soft_targets, view_pairs

__all__ = [
    "Head",
    "Objective",
    "SampledTokens",
    "States",
    "TopTokens",
    "cosine_similarities",
    "cross_entropy",
    "cross_entropy_of_probabilities",
    "distil_tokens",
    "kl_divergence",
    "label_loss",
    "noise_contrast",
    "soft_cross_entropy",
    "soft_targets",
    "squared_error",
    "top_k_logits",
    "view_pairs",
]
