"""How far predicted ratings are from the true ones."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from osmose.data.split import Split


def root_mean_square(errors: Tensor) -> float:
    """The root of the mean of squared errors [n], in stars."""
    return errors.double().mean().sqrt().item()


def error_by_genre(
    errors: Mapping[str, Tensor], split: Split, features: Tensor, genres: Sequence[str]
) -> dict[str, dict[str, float]]:
    """The root mean squared error on the items of each genre, of those with ratings.

    Args:
        errors: squared errors [n], by whose they are.
        split: the n ratings.
        features: float32 [items, genres], 1 where an item is of a genre.
        genres: names of the genres.

    Returns:
        By genre: "ratings", how many, and each one's error.
    """
    items = split.inputs.read(torch.arange(len(split)))[:, 1]
    found = {}
    for genre, of_items in zip(genres, features.unbind(1), strict=True):
        rows = of_items[items] > 0
        if rows.any():
            each = {who: root_mean_square(one[rows]) for who, one in errors.items()}
            found[genre] = {"ratings": int(rows.sum()), **each}
    return found
