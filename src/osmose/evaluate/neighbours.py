"""Classification by the nearest neighbours in a space of features, without training (Wu et al. 2018; DINO, arXiv 2104.14294)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def nearest_neighbours(
    bank: Tensor, labels: Tensor, queries: Tensor, *, classes: int, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """The class of each query, voted for by its k nearest in the bank, int64 [m]; of classes with as many votes the first.

    Arguments as of `neighbours_votes`.
    """
    return neighbours_votes(bank, labels, queries, classes=classes, k=k, temperature=temperature).argmax(-1)


def neighbours_votes(
    bank: Tensor, labels: Tensor, queries: Tensor, *, classes: int, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """Votes of each query's k nearest in the bank for their classes: one weighs exp(cosine similarity / temperature).

    Args:
        bank: features [n, D].
        labels: int64 [n], their classes.
        queries: features [m, D].
        classes: number of classes.
        k: neighbours that vote; at most n do.
        temperature: of the votes.

    Returns:
        float32 [m, classes].
    """
    bank, queries = F.normalize(bank, dim=-1), F.normalize(queries, dim=-1)
    voted = []
    for some in queries.split(1024):
        similar, nearest = (some @ bank.T).topk(min(k, len(bank)), dim=-1)
        weights = (similar / temperature).exp()
        voted.append(torch.zeros(len(some), classes).scatter_add_(1, labels[nearest], weights))
    return torch.cat(voted)
