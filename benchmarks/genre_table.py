"""The table of interactive communication on MovieLens, from the study interactive-movielens: genres across, methods down.

    python benchmarks/genre_table.py results/interactive-movielens results/movielens-teachers
    python benchmarks/genre_table.py results/interactive-movielens results/movielens-teachers method.state_weight=6.0

The second leaves out runs that have another value of that setting.

Means and standard errors over seeds of the test RMSE. Of a method's settings each genre has the one whose held-out error, a mean
over seeds, is lowest. Below: which variant of `interactive` and which baseline were best on the held-out part, over all genres
and in each, the difference of the two on the test part, paired over seeds, and in how many genres that variant differs from each
other method. Seeds change the teacher, initial weights and the order of samples; the split is the same for all, so that the
intervals say nothing of other test ratings.
"""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypeVar

import pyarrow.parquet as pq
from scipy.stats import t

from osmose import table

PAPER = (0.9965, 1.0908, 1.0475, 1.0761, 1.1656, 1.1050, 1.0022, 1.0485)
"""arXiv 2310.03188, the best variant of each column; its genres are not named, only that they go from dense to sparse."""
BEGINS = "interactive"

Runs = TypeVar("Runs", bound=Sized)
Errors = dict[str, dict[str, dict[int, float]]]
"""By method, genre and seed."""


def chosen(rows: Sequence[Mapping[str, Any]]) -> tuple[Errors, Errors]:
    """The held-out and the test errors of the settings that are best on the held-out part of their genre."""
    found: dict[tuple[str, str], dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        settings = table.settings(row)
        genre = settings.pop("data.genre")
        found[row["method"], genre][table.joined(settings)].append(row)
    heldout: Errors = defaultdict(dict)
    test: Errors = defaultdict(dict)
    for (method, genre), settings in found.items():
        best = min(complete(settings).values(), key=lambda runs: fmean(run["heldout_rmse_after"] for run in runs))
        heldout[method][genre] = {run["seed"]: run["heldout_rmse_after"] for run in best}
        test[method][genre] = {run["seed"]: run["rmse_after"] for run in best}
    return heldout, test


def complete(settings: Mapping[str, Runs]) -> dict[str, Runs]:
    """Those settings that have run with the most seeds: of an unfinished study the others' means say less."""
    most = max(map(len, settings.values()))
    return {name: runs for name, runs in settings.items() if len(runs) == most}


def mean(errors: Errors, method: str, genres: Sequence[str]) -> float:
    """Of some genres, over all seeds."""
    return fmean(value for genre in genres for value in errors[method][genre].values())


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> tuple[float, float]:
    """The mean difference over seeds, and half of its 95 % interval."""
    differences = [ours[seed] - theirs[seed] for seed in sorted(ours)]
    error = stdev(differences) / len(differences) ** 0.5
    return fmean(differences), float(t.ppf(0.975, len(differences) - 1)) * error


def main(study: Path, teachers: Path, only: Mapping[str, str]) -> None:
    rows = pq.read_table(study / "table.parquet").to_pylist()
    heldout, test = chosen([row for row in rows if only.items() <= (only | table.settings(row)).items()])
    genres = list(next(iter(test.values())))
    seeds = {seed for errors in test.values() for one in errors.values() for seed in one}
    for method in [method for method in test if any(set(test[method].get(genre, ())) != seeds for genre in genres)]:
        print(f"{method}: left out, as some of its runs are missing")
        del test[method], heldout[method]
    taught = [row for row in pq.read_table(teachers / "table.parquet").to_pylist() if row["seed"] in seeds]
    teacher = {genre: {row["seed"]: row[f"by_genre_{genre}_after"] for row in taught} for genre in genres}
    print("| | " + " | ".join(genres) + " |\n| --- |" + " ---: |" * len(genres))
    for method, errors in {"teacher": teacher, **test}.items():
        cells = [list(errors[genre].values()) for genre in genres]
        shown = (f"{fmean(cell):.4f} ± {stdev(cell) / len(cell) ** 0.5:.4f}" for cell in cells)
        print(f"| {method} | " + " | ".join(shown) + " |")
    print("| *the paper's best, assumed order* | " + " | ".join(f"*{value:.4f}*" for value in PAPER) + " |")

    own = [method for method in test if method.startswith(BEGINS)]
    baselines = [method for method in test if method not in own]
    fixed = min(own, key=lambda method: mean(heldout, method, genres))
    print(f"\nbest variant on the held-out part over all genres: {fixed}")
    for name, by in (("held-out", heldout), ("test", test)):
        print(f"\n{fixed} less the baseline that is best on the genre's {name} part (95 % interval over seeds):")
        better = surely = 0
        for genre in genres:
            rival = min(baselines, key=lambda method: mean(by, method, [genre]))
            difference, reach = paired(test[fixed][genre], test[rival][genre])
            better, surely = better + (difference < 0), surely + (difference + reach < 0)
            print(f"| {genre} | {rival} | {difference:+.4f} ({difference - reach:+.4f} to {difference + reach:+.4f}) |")
        print(f"better on {better} of {len(genres)}, beyond the interval on {surely}")
    print(f"\n{fixed} less each other: in how many genres it is better, better and worse beyond the interval; the mean")
    for method in test:
        if method != fixed:
            differences = [paired(test[fixed][genre], test[method][genre]) for genre in genres]
            better, surely, worse = (
                sum(map(counts, differences))
                for counts in (lambda one: one[0] < 0, lambda one: one[0] + one[1] < 0, lambda one: one[0] - one[1] > 0)
            )
            print(f"| {method} | {better} | {surely} | {worse} | {fmean(one[0] for one in differences):+.4f} |")
    print("\nbest variant of each genre on its held-out part, and its test RMSE:")
    for genre in genres:
        best = min(own, key=lambda method: mean(heldout, method, [genre]))
        print(f"| {genre} | {best} | {mean(test, best, [genre]):.4f} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), dict(one.split("=") for one in sys.argv[3:]))
