"""Draws docs/images/pairs.svg: the transfer delta of every pair of a study, by method.

python benchmarks/pair_picture.py results/pairs/table.parquet
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pyarrow.parquet as pq

from osmose.models.zoo import ZOO
from osmose.table import summarise

METHODS = {
    "kl": "KL",
    "xe-kl": "XE-KL",
    "kl-dp-unsupervised": "KL+DP\nno labels",
    "kl-dp": "KL+DP",
    "random-teacher": "KL+DP,\nrandom\nteacher",
    "self-distillation": "itself",
    "cross-entropy": "labels\nalone",
}
"""Methods in the order of the picture, the controls last."""
CONTROLS = 3
COLOURS = {"cnn": "#3b6fb6", "transformer": "#d1772e", "mlp": "#4b9b54"}


def draw(rows: Iterable[dict[str, Any]], place: Path) -> None:
    """One dot a run at its transfer delta on the test part, its colour the student's family; success rates below."""
    rows = list(rows)
    success = {row["method"]: row for row in summarise(rows) if row["part"] == "test"}
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "osmose", "font.family": "sans-serif"})
    figure, axes = plt.subplots(figsize=(7.6, 4.2))
    shifts = np.random.default_rng(0)
    for place_on_axis, method in enumerate(METHODS):
        for family, colour in COLOURS.items():
            deltas = [
                row["transfer_delta"]
                for row in rows
                if row["method"] == method and ZOO[row["student"].removeprefix("zoo:")].family == family
            ]
            x = place_on_axis + shifts.uniform(-0.28, 0.28, len(deltas))
            axes.scatter(
                x, deltas, s=13, color=colour, alpha=0.75, linewidth=0, label=family if not place_on_axis else None
            )
        median = success[method]["delta_median"]
        axes.plot([place_on_axis - 0.36, place_on_axis + 0.36], [median, median], color="#222222", linewidth=1.4)
        rate, pooled = success[method]["success_rate_median"], success[method]["success_rate_pooled"]
        axes.text(
            place_on_axis,
            0.015,
            f"{rate:.0f} %\n{pooled:.0f} %",
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
        )
    axes.axhline(0, color="#888888", linewidth=0.8)
    axes.axvline(len(METHODS) - CONTROLS - 0.5, color="#bbbbbb", linewidth=0.8, linestyle=":")
    axes.set_yscale("symlog", linthresh=1, linscale=0.9)
    ticks = [-5, -2, -1, -0.5, 0, 0.5, 1, 2]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_ylim(min(-30.0, *(1.6 * row["transfer_delta"] for row in rows)), 3)
    axes.set_xticks(range(len(METHODS)), list(METHODS.values()))
    axes.set_ylabel("transfer delta, points of test accuracy")
    axes.set_title(
        "Every ordered pair of the zoo, one seed. Below: pairs with a gain, median over students and pooled",
        fontsize=9,
        loc="left",
    )
    axes.legend(title="student", frameon=False, loc="lower right", bbox_to_anchor=(1, 0.12))
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(place, metadata={"Date": None})


if __name__ == "__main__":
    draw(pq.read_table(sys.argv[1]).to_pylist(), Path("docs/images/pairs.svg"))
