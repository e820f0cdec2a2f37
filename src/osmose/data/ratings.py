"""Ratings as a run uses them: one split of all of them, and then those of a genre."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from osmose.data.inputs import MemoryInputs
from osmose.data.movielens import RatingTable, read_ratings
from osmose.data.split import Split
from osmose.errors import UserError, check
from osmose.random import generator

RATINGS = "ratings:"
"""Begins the name of a data set of ratings."""


@dataclass(frozen=True)
class Ratings:
    """Ratings; a sample is x, int64 (user, item), and its label the stars.

    Attributes:
        name: the name they were loaded by.
        users: the users' own numbers or names; a user's place here is what networks take.
        items: the items', likewise.
        features: float32 [items, genres], 1 where an item is of a genre.
        genres: the genres' names, in order.
        tables: digest of all users and items, in order, of the features, and of the test and held-out parts: networks that were
            made for other ones do not fit, or have seen what they are to be tested or chosen by.
        train: what may be learned from.
        heldout: what choices are made on; None when nothing is held out.
        test: gives the test part.
        content: the whole training part.
    """

    name: str
    users: tuple[str, ...]
    items: tuple[str, ...]
    features: Tensor
    genres: tuple[str, ...]
    tables: str
    train: Split
    heldout: Split | None
    test: Callable[[], Split]
    content: tuple[Split, ...]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all ratings outside the test part, whatever their genre, and of users and items."""
        (whole,) = self.content
        assert whole.labels is not None
        content = whole.inputs.digest() + whole.labels.numpy().tobytes() + whole.index.numpy().tobytes()
        return hashlib.sha256(self.tables.encode() + content).hexdigest()


def load_ratings(
    name: str,
    *,
    genre: str | None = None,
    test: float = 0.2,
    heldout: float = 0.1,
    fraction: float = 1.0,
    split_seed: int = 0,
) -> Ratings:
    """The ratings in the folder behind `ratings:`; the settings are those of `osmose.recipe.RatingData`.

    Test and held-out part are drawn from all ratings before those of a genre are taken: what is a test sample of one genre was in
    no training part, whatever its genre.

    Raises:
        UserError: for a folder or row that cannot be read, an unknown genre, a share out of range, or a part that is empty.
    """
    check(0 < test < 1, "data.test", test, "a share between 0 and 1")
    check(0 <= heldout < 1, "data.heldout", heldout, "a share of at least 0 and below 1")
    check(0 < fraction <= 1, "data.fraction", fraction, "a share above 0 and at most 1")
    table = read_ratings(find_ratings(name))
    everything = torch.arange(len(table.stars))
    whole, tested = _divide(everything, test, split_seed, "ratings/test")
    train, held = _divide(whole, heldout, split_seed, "ratings/heldout") if heldout else (whole, None)
    if fraction < 1:
        _, train = _divide(train, fraction, split_seed, "ratings/fraction")
    kept = _of_genre(table, genre, name)

    def of_genre(rows: Tensor, which: str) -> Tensor:
        rows = rows[kept[rows]]
        if not len(rows):
            what = f"of genre '{genre}' " if genre else ""
            raise UserError(f"{name} has no ratings {what}in its {which} part: choose another share, or give more")
        return rows

    def part(rows: Tensor) -> Split:
        return Split(MemoryInputs(table.pairs[rows]), table.stars[rows], rows)

    tests = of_genre(tested, "test")

    return Ratings(
        name,
        table.users,
        table.items,
        table.features,
        table.genres,
        _digest(table, tested, everything[:0] if held is None else held),
        part(of_genre(train, "training")),
        None if held is None else part(of_genre(held, "held-out")),
        lambda: part(tests),
        (part(whole),),
    )


def find_ratings(name: str) -> Path:
    """The folder of a data set of ratings.

    Raises:
        UserError: when there is none.
    """
    folder = Path(name.removeprefix(RATINGS)).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"data set '{name}': there is no folder {folder}; give the folder of MovieLens's or RecBole's files"
        )
    return folder


def _divide(rows: Tensor, share: float, seed: int, stream: str) -> tuple[Tensor, Tensor]:
    """The rest of some rows, and a share of them; both in order."""
    count = min(max(1, round(len(rows) * share)), len(rows) - 1)
    apart = torch.zeros(len(rows), dtype=torch.bool)
    apart[torch.randperm(len(rows), generator=generator(seed, stream))[:count]] = True
    return rows[~apart], rows[apart]


def _of_genre(table: RatingTable, genre: str | None, name: str) -> Tensor:
    """Booleans [N]: which ratings are of items of a genre, or all of them."""
    if genre is None:
        return torch.ones(len(table.stars), dtype=torch.bool)
    items = table.pairs[:, 1]
    if genre not in table.genres:
        rated = torch.bincount(items, minlength=len(table.items)).float() @ (table.features > 0).float()
        counts = dict(zip(table.genres, map(int, rated.tolist()), strict=True))
        known = ", ".join(f"{one} ({counts[one]} ratings)" for one in sorted(counts, key=lambda one: -counts[one]))
        raise UserError(f"{name} has no genre '{genre}': it has {known or 'none'}")
    return (table.features[:, table.genres.index(genre)] > 0)[items]


def _digest(table: RatingTable, *parts: Tensor) -> str:
    """Of users, items, genres, and the pairs of some parts, in whatever order the files have them."""
    content = hashlib.sha256(json.dumps([table.users, table.items, table.genres]).encode())
    content.update(table.features.numpy().tobytes())
    for rows in parts:
        pairs = table.pairs[rows]
        content.update(pairs[(pairs[:, 0] * len(table.items) + pairs[:, 1]).argsort()].numpy().tobytes())
    return content.hexdigest()
