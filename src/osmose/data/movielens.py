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
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from osmose.errors import UserError

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
class _Rows:
    """The rows of a file, each cut into fields, with the numbers of their lines.

    Attributes:
        file: the file.
        cut: what makes fields of a line.
        encoding: of the file.
        fields: how many a row has; None for as many as the first.
    """

    file: Path
    cut: Callable[[str], list[str]]
    encoding: str = "utf-8-sig"
    fields: int | None = None

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        fields = self.fields
        try:
            with self.file.open(encoding=self.encoding) as lines:
                for number, line in enumerate(lines, start=1):
                    if not line.strip():
                        continue
                    row = [field.strip() for field in self.cut(line.rstrip("\n"))]
                    fields = fields or len(row)
                    if len(row) != fields:
                        raise self.damaged(number, f"it has {len(row)} fields, where {fields} were expected")
                    yield number, row
        except csv.Error as error:
            raise self.damaged(number, f"it cannot be cut into fields ({error})") from None
        except UnicodeDecodeError as error:
            encoding = self.encoding.removesuffix("-sig")
            raise UserError(f"{self.file} is not {encoding} ({error.reason}): save it as {encoding}") from None
        except OSError as error:
            raise UserError(f"cannot read {self.file}: {error.strerror}") from None

    def damaged(self, line: int, reason: str) -> UserError:
        """The error for a row."""
        return UserError(f"{self.file}, line {line}: {reason}: mend the row, or take it out")

    def columns(self, *wanted: tuple[str, ...]) -> list[int]:
        """Where the columns are whose names the first row gives; of each several names are known."""
        _, first = next(iter(self), (0, []))
        if not first:
            raise UserError(f"{self.file} is empty: give the whole file")
        names = [name.partition(":")[0] for name in first]
        for known in wanted:
            if not set(known) & set(names):
                raise UserError(f"{self.file} has no column {' or '.join(known)}, only {', '.join(names)}: add it")
        return [names.index(next(name for name in known if name in names)) for known in wanted]


_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class _Layout:
    """Ratings and items in their files.

    Attributes:
        ratings: the rows of ratings.
        columns: where a row has user, item and stars.
        items: the rows of items.
        name: where a row has the item.
        genres: what gives the genres of a row; raises ValueError with the reason where it cannot.
        heading: whether the first rows are headings.
    """

    ratings: _Rows
    columns: Sequence[int]
    items: _Rows
    name: int
    genres: Callable[[list[str]], list[str]]
    heading: bool


def read_ratings(folder: Path) -> RatingTable:
    """The ratings in a folder.

    Raises:
        UserError: when no layout fits the files, or for the first row that is damaged or repeated, by file and line.
    """
    for find in (_recbole, _hundred_thousand, _dat, _comma):
        layout = find(folder)
        if layout:
            return _table(layout)
    raise UserError(f"{folder} holds no ratings: give a folder with {_LAYOUTS}")


def _recbole(folder: Path) -> _Layout | None:
    found = [file for file in sorted(folder.glob("*.inter")) if file.with_suffix(".item").exists()]
    if not found:
        return None
    if len(found) > 1:
        raise UserError(
            f"{folder} holds several data sets ({', '.join(file.stem for file in found)}): give a folder with one"
        )
    ratings, items = (_Rows(file, _tabs) for file in (found[0], found[0].with_suffix(".item")))
    name, genres = items.columns(("item_id",), ("class", "genre", "genres"))
    columns = ratings.columns(("user_id",), ("item_id",), ("rating",))
    return _Layout(ratings, columns, items, name, lambda row: _listed(row[genres], " "), heading=True)


def _hundred_thousand(folder: Path) -> _Layout | None:
    ratings, items, names = (folder / name for name in ("u.data", "u.item", "u.genre"))
    if not (ratings.exists() and items.exists()):
        return None
    if not names.exists():
        raise UserError(f"{folder} has u.data and u.item but no u.genre, which names the genres: add it")
    genres = _numbered(_Rows(names, _bars, "latin-1", 2))

    def flagged(row: list[str]) -> list[str]:
        if not set(row[5:]) <= {"0", "1"}:
            raise ValueError("its genres are not 0 or 1")
        return [genre for genre, flag in zip(genres, row[5:], strict=True) if flag == "1"]

    described = _Rows(items, _bars, "latin-1", 5 + len(genres))
    return _Layout(_Rows(ratings, _tabs, fields=4), (0, 1, 2), described, 0, flagged, heading=False)


def _numbered(rows: _Rows) -> list[str]:
    """Names in the order of their numbers, which go from 0."""
    found: list[str] = []
    for line, (name, number) in sorted(rows, key=lambda numbered: (len(numbered[1][1]), numbered[1][1])):
        if number != str(len(found)):
            raise rows.damaged(line, f"its number is '{number}', where {len(found)} was expected")
        found.append(name)
    return found


def _dat(folder: Path) -> _Layout | None:
    ratings, items = folder / "ratings.dat", folder / "movies.dat"
    if not (ratings.exists() and items.exists()):
        return None
    described = _Rows(items, _colons, "utf-8-sig" if _is_utf8(items) else "latin-1", 3)  # 10M and 1M
    rows = _Rows(ratings, _colons, fields=4)
    return _Layout(rows, (0, 1, 2), described, 0, lambda row: _listed(row[2]), heading=False)


def _comma(folder: Path) -> _Layout | None:
    ratings, items = folder / "ratings.csv", folder / "movies.csv"
    if not (ratings.exists() and items.exists()):
        return None
    rows, described = (_Rows(file, lambda line: next(csv.reader([line]))) for file in (ratings, items))
    name, genres = described.columns(("movieId",), ("genres",))
    columns = rows.columns(("userId",), ("movieId",), ("rating",))
    return _Layout(rows, columns, described, name, lambda row: _listed(row[genres]), heading=True)


def _listed(text: str, mark: str = "|") -> list[str]:
    return [] if text.strip() == "(no genres listed)" else [genre for genre in text.split(mark) if genre]


def _tabs(line: str) -> list[str]:
    return line.split("\t")


def _bars(line: str) -> list[str]:
    return line.split("|")


def _colons(line: str) -> list[str]:
    return line.split("::")


def _table(layout: _Layout) -> RatingTable:
    genres = _genres(layout)
    items, users = {name: place for place, name in enumerate(genres)}, dict[str, int]()
    pairs, stars, lines = array("q"), array("f"), array("q")
    user, item, rating = layout.columns
    for line, row in _behind(layout.ratings, heading=layout.heading):
        if not row[user]:
            raise layout.ratings.damaged(line, "it names no user")
        if row[item] not in items:
            raise layout.ratings.damaged(line, f"its item {row[item]} is not among the items")
        value = _number(row[rating])
        if not math.isfinite(value):
            raise layout.ratings.damaged(line, f"its rating '{row[rating]}' is no number")
        pairs.append(users.setdefault(row[user], len(users)))
        pairs.append(items[row[item]])
        stars.append(value)
        lines.append(line)
    if not stars:
        raise UserError(f"{layout.ratings.file.parent} holds no ratings: {layout.ratings.file.name} has no rows")
    found = np.frombuffer(pairs, dtype=np.int64).reshape(-1, 2)
    _check_once(found, lines, layout)
    user_order, item_order = _ordered(users), _ordered(items)
    found = np.stack([_places(user_order, users)[found[:, 0]], _places(item_order, items)[found[:, 1]]], axis=1)
    names = tuple(sorted({genre for some in genres.values() for genre in some}))
    features = torch.tensor([[float(name in genres[item]) for name in names] for item in item_order])
    return RatingTable(
        user_order,
        item_order,
        names,
        torch.from_numpy(found),
        torch.from_numpy(np.frombuffer(stars, dtype=np.float32).copy()),
        features.view(len(item_order), len(names)),
    )


def _genres(layout: _Layout) -> dict[str, list[str]]:
    """The genres of each item."""
    found: dict[str, list[str]] = {}
    for line, row in _behind(layout.items, heading=layout.heading):
        if not row[layout.name]:
            raise layout.items.damaged(line, "it names no item")
        if row[layout.name] in found:
            raise layout.items.damaged(line, f"its item {row[layout.name]} was there before")
        try:
            found[row[layout.name]] = layout.genres(row)
        except ValueError as error:
            raise layout.items.damaged(line, str(error)) from None
    return found


def _behind(rows: _Rows, *, heading: bool) -> Iterator[tuple[int, list[str]]]:
    """The rows, without a heading."""
    found = iter(rows)
    if heading:
        next(found, None)
    return found


def _check_once(pairs: np.ndarray, lines: "array[int]", layout: _Layout) -> None:
    """Raise `UserError` where a user rates an item twice: one of the two could test what the other taught."""
    keys = pairs[:, 0] * (pairs[:, 1].max() + 1) + pairs[:, 1]
    _, first = np.unique(keys, return_index=True)
    if len(first) < len(keys):
        again = np.ones(len(keys), dtype=bool)
        again[first] = False
        raise layout.ratings.damaged(lines[int(again.argmax())], "its user has rated this item before")


def _places(order: Sequence[str], found: dict[str, int]) -> np.ndarray:
    """For each place in the order of the file the place in the final order."""
    places = np.empty(len(order), dtype=np.int64)
    places[[found[name] for name in order]] = np.arange(len(order))
    return places


def _ordered(names: dict[str, int]) -> tuple[str, ...]:
    """Names in an order that the file does not change: numbers by size, others by letters."""

    def key(name: str) -> tuple[bool, int, str, str]:
        digits = name.lstrip("0") if name.isdecimal() else ""
        return not name.isdecimal(), len(digits), digits, name

    return tuple(sorted(names, key=key))


def _number(text: str) -> float:
    """The number that a text is; NaN where it is none, or none that float32 holds."""
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan
    return value if abs(value) <= _LARGEST else math.nan


def _is_utf8(file: Path) -> bool:
    try:
        with file.open(encoding="utf-8") as lines:
            for _ in lines:
                pass
    except UnicodeDecodeError:
        return False
    return True
