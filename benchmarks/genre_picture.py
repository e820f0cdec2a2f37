"""Draws docs/images/interactive-movielens.svg: how far methods of the study interactive-movielens are from plain distillation.

    python benchmarks/genre_picture.py results/interactive-movielens docs/images/interactive-movielens.svg

A panel a genre. Differences of test RMSE, means over seeds with their 95 % intervals, paired; of a method's settings each genre
has the one that is best on its held-out part.
"""

import sys
from pathlib import Path

import pyarrow.parquet as pq

from genre_table import chosen, paired
from osmose.figures.canvas import canvas

BESIDE = "distillation"
METHODS = {
    "alone": "labels alone", "fitnet": "hints", "feature": "features", "relational": "relations",
    "interactive-1": "messages, labels", "interactive-1-distillation": "messages, distillation",
}  # fmt: skip


def draw(study: Path, path: Path) -> None:
    """Of those of the methods that the study has."""
    _, test = chosen(pq.read_table(study / "table.parquet").to_pylist())
    genres = list(test[BESIDE])
    shown = {method: name for method, name in METHODS.items() if method in test}
    with canvas(path, rows=2, columns=len(genres) // 2, size=(10, 4.2)) as axes:
        for place, genre in zip(axes.flat, genres, strict=True):
            for row, method in enumerate(shown):
                if genre not in test[method]:
                    continue
                difference, reach = paired(test[method][genre], test[BESIDE][genre])
                own = method.startswith("interactive")
                place.errorbar(difference, row, xerr=reach, fmt="o", ms=5, color="tab:red" if own else "tab:blue")
            place.axvline(0, color="0.4", lw=1)
            place.set_title(genre, fontsize=9)
            place.set_yticks(range(len(shown)), shown.values() if place in axes[:, 0] else [], fontsize=8)
            place.set_ylim(len(shown) - 0.5, -0.5)
            place.tick_params(axis="x", labelsize=7)
            place.locator_params(axis="x", nbins=4)
        for place in axes[-1]:
            place.set_xlabel("RMSE less distillation's", fontsize=8)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
