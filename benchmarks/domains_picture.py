"""Draws docs/images/language-partition.svg: what was gained in the teacher's domain and lost in the student's own, by method.

    python benchmarks/domains_picture.py results/language-partition results/language-partition-control \
        docs/images/language-partition.svg
"""

import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.parquet as pq

from osmose.figures.canvas import canvas

METHODS = {
    "text-alone": ("text alone", "tab:gray", "s"), "kl": ("KL", "tab:red", "o"), "xe-kl": ("XE-KL", "tab:orange", "o"),
    "kl-dp": ("KL+DP", "tab:blue", "D"), "xe-kl-dp": ("XE-KL+DP", "tab:cyan", "D"),
    "kl-dp-unsupervised": ("KL+DP without labels", "tab:purple", "D"), "kl-slower": ("KL, slower", "lightcoral", "o"),
}  # fmt: skip
AT_RANDOM = "kl-at-random-"


def measured(study: Path) -> list[tuple[str, dict[str, Any]]]:
    """The method and the numbers of each run."""
    rows = pq.read_table(study / "table.parquet").to_pylist()
    return [(row["method"], json.loads((study / row["folder"] / "result.json").read_text())) for row in rows]


def domains(numbers: dict[str, Any]) -> tuple[float, float]:
    """Perplexity in the teacher's domain and in the student's own."""
    return numbers["perplexity_after"], next(iter(numbers["others"].values()))["perplexity_after"]


def draw(study: Path, control: Path, path: Path) -> None:
    """A mark a seed, and a line through the means of the control; the teacher, and where in its own domain the student began."""
    runs, random = measured(study), measured(control)
    with canvas(path, size=(7, 4.4)) as [[axes]]:
        for method, (label, colour, mark) in METHODS.items():
            found = [domains(numbers) for name, numbers in runs if name == method]
            axes.plot(*zip(*found, strict=True), mark, color=colour, label=label, ms=6, alpha=0.7)
        shares = sorted({int(name.removeprefix(AT_RANDOM)) for name, _ in random})
        means = []
        for share in shares:
            found = [domains(numbers) for name, numbers in random if name == f"{AT_RANDOM}{share}"]
            means.append((fmean(x for x, _ in found), fmean(y for _, y in found)))
            axes.annotate(f"{share} %", means[-1], (4, 4), textcoords="offset points", fontsize=8, color="tab:green")
        label = "KL, tokens at random by the student as it was"
        axes.plot(*zip(*means, strict=True), "x-", color="tab:green", label=label, ms=6, lw=1)
        taught = next(numbers for _, numbers in runs if "teacher1" in numbers)
        other = next(iter(taught["others"].values()))
        before = f"the student before ({taught['perplexity_before']:.1f} on histories)"
        axes.axhline(other["perplexity_before"], color="k", ls=":", lw=1, label=before)
        axes.plot(taught["teacher1"]["perplexity"], other["teacher1"]["perplexity"], "kP", ms=9, label="the teacher")
        axes.set(xlabel="perplexity in the teacher's domain (histories)", ylabel="in the student's (comedies)")
        axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)


if __name__ == "__main__":
    draw(*map(Path, sys.argv[1:4]))
