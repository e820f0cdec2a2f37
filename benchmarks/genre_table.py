"""The table of interactive communication on MovieLens, from the study interactive-movielens: genres across, methods down.

    python benchmarks/genre_table.py results/interactive-movielens results/movielens-teachers

Means and standard errors over seeds of the test RMSE. Below: which variant of `interactive` and which baseline were best on the
held-out part, over all genres and in each, and the difference of the two on the test part, paired over seeds.
"""

import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev

import pyarrow.parquet as pq
from scipy.stats import t

PAPER = (0.9965, 1.0908, 1.0475, 1.0761, 1.1656, 1.1050, 1.0022, 1.0485)
"""arXiv 2310.03188, the best variant of each column; its genres are not named, only that they go from dense to sparse."""
BEGINS = "interactive"


def main(study: Path, teachers: Path) -> None:
    test, heldout = (defaultdict(dict) for _ in range(2))
    genres: list[str] = []
    for row in pq.read_table(study / "table.parquet").to_pylist():
        genre = row["settings"].removeprefix("data.genre=")
        genres += [genre] if genre not in genres else []
        test[row["method"], genre][row["seed"]] = row["rmse_after"]
        heldout[row["method"], genre][row["seed"]] = row["heldout_rmse_after"]
    for row in pq.read_table(teachers / "table.parquet").to_pylist():
        for genre in genres:
            test["teacher", genre][row["seed"]] = row[f"by_genre_{genre}_after"]
    methods = list(dict.fromkeys(method for method, _ in test))
    methods = ["teacher", *(method for method in methods if method != "teacher")]
    print("| | " + " | ".join(genres) + " |\n| --- |" + " ---: |" * len(genres))
    for method in methods:
        cells = (test[method, genre].values() for genre in genres)
        print(
            f"| {method} | "
            + " | ".join(f"{fmean(c):.4f} ± {stdev(c) / len(c) ** 0.5:.4f}" for c in map(list, cells))
            + " |"
        )
    print("| *the paper's best, assumed order* | " + " | ".join(f"*{value:.4f}*" for value in PAPER) + " |")

    own = [method for method in methods if method.startswith(BEGINS)]
    baselines = [method for method in methods if method not in own and method != "teacher"]

    def score(method: str, some: list[str]) -> float:
        return fmean(value for genre in some for value in heldout[method, genre].values())

    fixed = min(own, key=lambda method: score(method, genres))
    print(f"\nbest variant on the held-out part over all genres: {fixed}")
    for name, choose in (
        ("the baseline that is best on the genre's held-out part", heldout),
        ("the baseline that is best on the genre's test part", test),
    ):
        print(f"\n{fixed} less {name} (negative is better), 95 % interval over seeds:")
        better = 0
        for genre in genres:
            rival = min(baselines, key=lambda method: fmean(choose[method, genre].values()))
            differences = [test[fixed, genre][seed] - value for seed, value in test[rival, genre].items()]
            mean, error = fmean(differences), stdev(differences) / len(differences) ** 0.5
            reach = t.ppf(0.975, len(differences) - 1) * error
            better += mean < 0
            print(f"| {genre} | {rival} | {mean:+.4f} ({mean - reach:+.4f} to {mean + reach:+.4f}) |")
        print(f"better on {better} of {len(genres)}")
    print("\nbest variant of each genre on its held-out part, and its test RMSE:")
    for genre in genres:
        best = min(own, key=lambda method: score(method, [genre]))
        print(f"| {genre} | {best} | {fmean(test[best, genre].values()):.4f} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
