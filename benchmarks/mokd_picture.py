"""Draws docs/images/mokd.svg: what losses of MOKD give to a CNN and a transformer, of studies mokd-fashion and mokd-terms.

    python benchmarks/mokd_picture.py results/mokd-fashion results/mokd-terms docs/images/mokd.svg

A panel a network and a way to read its features, a row a choice of losses: test accuracy of each seed, and their mean.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from mokd_tables import COLUMNS, of, read
from osmose.figures.canvas import canvas

PAIR = ("resnet-s", "vit-s")
METHODS = {
    "alone": "own MLP-Head (dino)", "cross-features": "and the other's MLP-Head", "self-both": "own MLP-Head and T-Head",
    "without-search": "all but L_ct", "search-of-the-code": "all, search of the code", "mokd": "all",
    "little-to-the-cnn": "all, little to the ResNet", "little-to-the-transformer": "all, little to the ViT",
    "little-to-both": "all, little to both", "alone-longer": "own MLP-Head, twice as long",
}  # fmt: skip


def draw(studies: Sequence[Path], path: Path) -> None:
    """Of those of the methods that the studies have."""
    found = read(studies)[" + ".join(PAIR)]
    shown = {method: name for method, name in METHODS.items() if method in found}
    with canvas(path, rows=1, columns=len(COLUMNS), size=(11, 3.2)) as axes:
        for place, (said, column) in zip(axes.flat, COLUMNS.items(), strict=True):
            for row, method in enumerate(shown):
                seeds = of(found[method], column).values()
                colour = "tab:blue" if "alone" in method else "tab:red"
                place.scatter([*seeds], [row] * len(seeds), s=9, alpha=0.5, color=colour, lw=0)
                place.scatter(fmean(seeds), row, s=36, color=colour)
            place.axvline(fmean(of(found["alone"], column).values()), color="0.4", lw=1)
            way, number = said.split()
            place.set_title(
                f"{PAIR[int(number) - 1]}, {'20 neighbours' if way == 'neighbours' else 'linear classifier'}",
                fontsize=9,
            )
            place.set_yticks(range(len(shown)), shown.values() if place is axes.flat[0] else [], fontsize=8)
            place.set_ylim(len(shown) - 0.5, -0.5)
            place.tick_params(axis="x", labelsize=7)
            place.set_xlabel("test images right, %", fontsize=8)


if __name__ == "__main__":
    draw([Path(study) for study in sys.argv[1:-1]], Path(sys.argv[-1]))
