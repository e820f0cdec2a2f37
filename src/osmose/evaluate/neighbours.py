"""Classification by the nearest neighbours in a space of features, without training (Wu et al. 2018; DINO, arXiv 2104.14294)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def nearest_neighbours(
    bank: Tensor, labels: Tensor, queries: Tensor, *, classes: int, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """The class of each query, voted for by its k nearest in the bank, int64 [m]; of classes with as many votes the first.

    Other arguments as of `neighbours_votes`.
    """
    return neighbours_votes(bank, labels, queries, classes=classes, numbers=(k,), temperature=temperature)[k].argmax(-1)


def neighbours_votes(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    *,
    classes: int,
    numbers: Sequence[int] = (20,),
    temperature: float = 0.07,
) -> dict[int, Tensor]:
    """Votes of each query's k nearest in the bank for their classes: one weighs exp(cosine similarity / temperature).

    Args:
        bank: features [n, D].
        labels: int64 [n], their classes.
        queries: features [m, D].
        classes: number of classes.
        numbers: one k or several; at most n neighbours vote.
        temperature: of the votes.

    Returns:
        For each k float32 [m, classes].
    """
    bank, queries = F.normalize(bank, dim=-1), F.normalize(queries, dim=-1)
    voted: dict[int, list[Tensor]] = {k: [] for k in numbers}
    for some in queries.split(1024):
        similar, nearest = (some @ bank.T).topk(min(max(numbers), len(bank)), dim=-1)
        weights, votes = (similar / temperature).exp(), labels[nearest]
        for k, found in voted.items():
            found.append(torch.zeros(len(some), classes).scatter_add_(1, votes[:, :k], weights[:, :k]))
    return {k: torch.cat(found) for k, found in voted.items()}
