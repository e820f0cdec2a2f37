"""Each method of a study beside one of them, on the test part, paired over seeds.

    python benchmarks/paired_table.py results/interactive-zoo kl-dp

A row a student and method; in studies of ratings, students are told apart by their genre. Of the settings of a method each has
the one with the best held-out result, a mean over seeds. Means ± standard deviations over seeds; of differences the 95 %
interval.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.parquet as pq

from genre_table import complete
from mokd_tables import difference, spread
from osmose import table

GENRE = "data.genre"

Runs = dict[int, Mapping[str, Any]]
"""The rows of one method, student and settings, by seed."""


def grouped(rows: list[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Runs]]]:
    """The rows by student or genre, then by method, settings and seed."""
    found: dict[str, dict[str, dict[str, Runs]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for row in rows:
        settings = table.settings(row)
        genre = settings.pop(GENRE, None)
        runs = found[genre or row["student"]][row["method"]][table.joined(settings)]
        if row["seed"] in runs:
            sys.exit(
                f"{row['student']} has several teachers in method {row['method']}: this table is of studies with one"
            )
        runs[row["seed"]] = row
    return found


def best(settings: Mapping[str, Runs], after: str, sign: int) -> tuple[str, Runs]:
    """The settings with the largest (sign 1) or smallest (-1) held-out result, a mean over seeds, and their runs."""
    return max(
        complete(settings).items(), key=lambda one: sign * fmean(row[f"heldout_{after}"] for row in one[1].values())
    )


def lines(rows: list[Mapping[str, Any]], baseline: str) -> Iterator[str]:
    """The table, line by line."""
    measure, sign, digits = ("rmse", -1, 4) if "rmse_after" in rows[0] else ("accuracy", 1, 2)
    after = f"{measure}_after"

    yield f"| student | method | settings | before | after | less {baseline} |"
    yield "| --- | --- | --- | ---: | ---: | ---: |"
    for student, methods in grouped(rows).items():
        if baseline not in methods:
            sys.exit(f"{student} has no method {baseline}: give one of {', '.join(methods)}")
        chosen = {method: best(settings, after, sign) for method, settings in methods.items()}
        theirs = {seed: row[after] for seed, row in chosen[baseline][1].items()}
        for method, (settings, runs) in chosen.items():
            ours = {seed: row[after] for seed, row in runs.items()}
            if ours.keys() != theirs.keys() or len(ours) < 2:
                sys.exit(
                    f"{student}, {method}: seeds {sorted(ours)} beside {sorted(theirs)}; finish the study, with two at least"
                )
            before = fmean(row[f"{measure}_before"] for row in runs.values())
            yield (
                f"| {student} | {method} | {settings} | {before:.{digits}f} | {spread(ours.values(), digits)} "
                f"| {'' if method == baseline else difference(ours, theirs, digits)} |"
            )


if __name__ == "__main__":
    print(*lines(pq.read_table(Path(sys.argv[1]) / "table.parquet").to_pylist(), sys.argv[2]), sep="\n")
