"""Draws docs/images/language-partition.svg: what was gained in the teacher's domain and lost in the student's own, by method.

python benchmarks/domains_picture.py results/language-partition docs/images/language-partition.svg
"""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq

from osmose.figures.canvas import canvas

METHODS = {
    "text-alone": ("text alone", "tab:gray", "s"), "kl": ("KL", "tab:red", "o"), "xe-kl": ("XE-KL", "tab:orange", "o"),
    "kl-dp": ("KL+DP", "tab:blue", "D"), "xe-kl-dp": ("XE-KL+DP", "tab:cyan", "D"),
    "kl-dp-unsupervised": ("KL+DP without labels", "tab:purple", "D"), "kl-slower": ("KL, slower", "lightcoral", "o"),
}  # fmt: skip


def draw(study: Path, path: Path) -> None:
    """A mark a seed; the teacher, and where in its own domain the student began."""
    rows = pq.read_table(study / "table.parquet").to_pylist()
    numbers = [json.loads((study / row["folder"] / "result.json").read_text()) for row in rows]
    with canvas(path, size=(7, 4)) as [[axes]]:
        for method, (label, colour, mark) in METHODS.items():
            found = [one for row, one in zip(rows, numbers, strict=True) if row["method"] == method]
            others = [next(iter(one["others"].values())) for one in found]
            axes.plot(
                [one["perplexity_after"] for one in found], [one["perplexity_after"] for one in others],
                mark, color=colour, label=label, ms=6, alpha=0.7,
            )  # fmt: skip
        taught = next(one for one in numbers if "teacher1" in one)
        other = next(iter(taught["others"].values()))
        before = f"the student before ({taught['perplexity_before']:.1f} on histories)"
        axes.axhline(other["perplexity_before"], color="k", ls=":", lw=1, label=before)
        axes.plot(taught["teacher1"]["perplexity"], other["teacher1"]["perplexity"], "kP", ms=9, label="the teacher")
        axes.set(xlabel="perplexity in the teacher's domain (histories)", ylabel="in the student's (comedies)")
        axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
