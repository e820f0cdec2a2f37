"""What a report says of a network that predicts ratings."""

from collections.abc import Mapping
from typing import Any

from osmose.report.page import Section, Tile


def rating_tiles(numbers: Mapping[str, Any]) -> list[Tile]:
    """The numbers that are read first."""
    before, after = numbers["rmse_before"], numbers["rmse_after"]
    tiles = [
        Tile("stars off before (RMSE)", f"{before:.4f}"),
        Tile("after", f"{after:.4f}", "gained" if after < before else "lost" if after > before else ""),
        Tile("ratings nearer", f"{numbers['nearer']:.1f} %", "gained"),
        Tile("ratings farther off", f"{numbers['farther']:.1f} %", "lost"),
    ]
    return [*tiles, *(Tile(role, f"{found['rmse']:.4f}") for role, found in teachers(numbers).items())]


def rating_scores(numbers: Mapping[str, Any]) -> list[Section]:
    """A table of the errors on the items of each genre."""
    columns, rows = genre_table(numbers)
    return [Section("Genre by genre", "Root mean squared error in stars.", columns=columns, rows=rows)] if rows else []


def genre_table(numbers: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows, the genre with the most ratings first."""
    roles = ["before", "after", *teachers(numbers)]
    by_genre = sorted(numbers["by_genre"].items(), key=lambda item: -item[1]["ratings"])
    rows = [[genre, str(found["ratings"]), *(f"{found[role]:.4f}" for role in roles)] for genre, found in by_genre]
    return ["genre", "ratings", *roles], rows


def teachers(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The teachers' numbers, by role."""
    return {key: value for key, value in numbers.items() if key.startswith("teacher") and isinstance(value, Mapping)}
