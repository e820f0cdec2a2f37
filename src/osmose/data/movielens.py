"""Ratings of items by users, in the layouts that MovieLens and RecBole have.

| files | layout |
| --- | --- |
| `NAME.inter`, `NAME.item` | RecBole's atomic files, with a column of ratings, and of genres (`class`, `genre` or `genres`) |
| `u.data`, `u.item`, `u.genre` | MovieLens 100K |
| `ratings.dat`, `movies.dat` | MovieLens 1M and 10M |
| `ratings.csv`, `movies.csv` | MovieLens 20M, 25M, 32M and latest |
"""

import csv
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from osmose.errors import UserError

_NONE = "(no genres listed)"
_LAYOUTS = "NAME.inter and NAME.item, u.data and u.item, ratings.dat and movies.dat, or ratings.csv and movies.csv"


@dataclass(frozen=True)
class RatingTable:
    """All ratings of a data set, in the order of its file.

    Attributes:
        users: the users' own numbers or names, in order.
        items: the items'.
        genres: names of the genres, in order.
        pairs: int64 [N, 2], who rated what, as places in `users` and `items`.
        stars: float32 [N], how.
        features: float32 [items, genres], 1 where an item is of a genre.
    """

    users: tuple[str, ...]
    items: tuple[str, ...]
    genres: tuple[str, ...]
    pairs: Tensor
    stars: Tensor
    features: Tensor


@dataclass(frozen=True)
class _Rating:
    place: str
    user: str
    item: str
    stars: str


def read_ratings(folder: Path) -> RatingTable:
    """The ratings in a folder.

    Raises:
        UserError: when no layout fits the files, or for the first row that is damaged, by file and line.
    """
    for reader in (_recbole, _hundred_thousand, _dat, _comma):
        found = reader(folder)
        if found:
            return _table(*found, folder)
    raise UserError(f"{folder} holds no ratings: give a folder with {_LAYOUTS}")


_Found = tuple[Iterator[_Rating], Mapping[str, list[str]]]
"""Ratings, and the genres of each item."""


def _recbole(folder: Path) -> _Found | None:
    pairs = [(file, file.with_suffix(".item")) for file in sorted(folder.glob("*.inter"))]
    pairs = [(ratings, items) for ratings, items in pairs if items.exists()]
    if not pairs:
        return None
    ratings, items = pairs[0]
    rows = _rows(ratings, "utf-8", lambda line: line.split("\t"))
    user, item, stars = _columns(ratings, rows, ("user_id",), ("item_id",), ("rating",))
    described = _rows(items, "utf-8", lambda line: line.split("\t"))
    name, genres = _columns(items, described, ("item_id",), ("class", "genre", "genres"))
    return (
        (_Rating(place, row[user], row[item], row[stars]) for place, row in rows),
        {row[name]: row[genres].split() for _, row in described},
    )


def _hundred_thousand(folder: Path) -> _Found | None:
    ratings, items, names = (folder / name for name in ("u.data", "u.item", "u.genre"))
    if not (ratings.exists() and items.exists() and names.exists()):
        return None
    genres = [line.partition("|")[0] for line in _text(names, "latin-1").splitlines() if line.strip()]
    described = {}
    for place, row in _rows(items, "latin-1", lambda line: line.split("|"), 5 + len(genres)):
        if not set(row[5:]) <= {"0", "1"}:
            raise _damaged(place, "its genres are not 0 or 1")
        described[row[0]] = [genre for genre, flag in zip(genres, row[5:], strict=True) if flag == "1"]
    rows = _rows(ratings, "utf-8", lambda line: line.split("\t"), 4)
    return (_Rating(place, *row[:3]) for place, row in rows), described


def _dat(folder: Path) -> _Found | None:
    ratings, items = folder / "ratings.dat", folder / "movies.dat"
    if not (ratings.exists() and items.exists()):
        return None
    encoding = "utf-8" if _is_utf8(items) else "latin-1"  # 10M and 1M
    described = {row[0]: row[2].split("|") for _, row in _rows(items, encoding, lambda line: line.split("::"), 3)}
    rows = _rows(ratings, "utf-8", lambda line: line.split("::"), 4)
    return (_Rating(place, *row[:3]) for place, row in rows), described


def _comma(folder: Path) -> _Found | None:
    ratings, items = folder / "ratings.csv", folder / "movies.csv"
    if not (ratings.exists() and items.exists()):
        return None
    rows, described = (_rows(file, "utf-8", lambda line: next(csv.reader([line]))) for file in (ratings, items))
    user, item, stars = _columns(ratings, rows, ("userId",), ("movieId",), ("rating",))
    name, genres = _columns(items, described, ("movieId",), ("genres",))
    return (
        (_Rating(place, row[user], row[item], row[stars]) for place, row in rows),
        {row[name]: [] if row[genres] == _NONE else row[genres].split("|") for _, row in described},
    )


def _rows(
    file: Path, encoding: str, cut: Callable[[str], list[str]], fields: int | None = None
) -> Iterator[tuple[str, list[str]]]:
    """The rows of a file with their places, all of as many fields as there should be, or as the first one has."""
    for number, line in enumerate(_text(file, encoding).splitlines(), start=1):
        if not line.strip():
            continue
        place, row = f"{file}, line {number}", cut(line)
        fields = fields or len(row)
        if len(row) != fields:
            raise _damaged(place, f"it has {len(row)} fields, where {fields} were expected")
        yield place, row


def _columns(file: Path, rows: Iterator[tuple[str, list[str]]], *wanted: tuple[str, ...]) -> list[int]:
    """Where the columns of these names are in a file, whose first row is taken; of each several names are known."""
    names = [name.partition(":")[0] for name in next(rows, ("", []))[1]]
    for known in wanted:
        if not set(known) & set(names):
            raise UserError(f"{file} has no column {' or '.join(known)}, only {', '.join(names)}: add it")
    return [names.index(next(name for name in known if name in names)) for known in wanted]


def _table(ratings: Iterator[_Rating], described: Mapping[str, list[str]], folder: Path) -> RatingTable:
    rows = list(ratings)
    if not rows:
        raise UserError(f"{folder} holds no ratings: its file has no rows")
    stars = []
    for one in rows:
        if one.item not in described:
            raise _damaged(one.place, f"its item {one.item} is not among the items")
        try:
            value = float(one.stars)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise _damaged(one.place, f"its rating '{one.stars}' is no number")
        stars.append(value)
    users, items = _ordered({one.user for one in rows}), _ordered(set(described))
    genres = tuple(sorted({genre for found in described.values() for genre in found}))
    user_places, item_places = ({name: place for place, name in enumerate(names)} for names in (users, items))
    features = torch.tensor([[float(genre in described[item]) for genre in genres] for item in items])
    return RatingTable(
        users, items, genres,
        torch.tensor([[user_places[one.user], item_places[one.item]] for one in rows]),
        torch.tensor(stars),
        features.view(len(items), len(genres)),
    )  # fmt: skip


def _ordered(names: set[str]) -> tuple[str, ...]:
    """Names in an order that the file does not change: numbers by size, others by letters."""
    return tuple(sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name)))


def _text(file: Path, encoding: str) -> str:
    try:
        return file.read_text(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not {encoding} at byte {error.start}: save it as {encoding}") from None
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None


def _is_utf8(file: Path) -> bool:
    try:
        file.read_text("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _damaged(place: str, reason: str) -> UserError:
    return UserError(f"{place}: {reason}: mend the row, or take it out")
