"""Whether two methods of a study of ratings teach students the same: how alike their errors are, and what their mean gains.

    python benchmarks/rating_errors.py results/interactive-movielens relational interactive-1-distillation

For each genre the settings that are best on its held-out part, on the test part: how errors correlate between two seeds of the
first method, of the second, and between one of each; and the RMSE of the mean of both answers, of the same pairs. Seeds change
the teacher too, and only pairs of different seeds are taken. Two students that know the same have errors as alike across methods
as within one, and their mean gains no more. The runs' weights must be there still.
"""

import sys
from collections.abc import Mapping
from itertools import combinations, permutations
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor

from osmose import load_model, load_ratings
from osmose.data.split import Split
from osmose.evaluate import predict
from paired_table import best, grouped

Answers = dict[int, Tensor]
"""Of one method and genre, by seed: float64 [n]."""


def answers(study: Path, runs: Mapping[int, Mapping[str, Any]], test: Split) -> Answers:
    """What each seed's student says of the test part."""
    models = {seed: load_model(f"file:{study / row['folder']}") for seed, row in runs.items()}
    return {seed: predict(model, test).flatten().double() for seed, model in models.items()}


def compared(ours: Answers, theirs: Answers, stars: Tensor) -> tuple[float, float]:
    """Over pairs of different seeds: the mean correlation of errors, and the RMSE of mean answers."""
    pairs = [*combinations(ours, 2)] if ours is theirs else [*permutations(ours, 2)]
    alike = [float(torch.corrcoef(torch.stack([ours[a] - stars, theirs[b] - stars]))[0, 1]) for a, b in pairs]
    means = [float(((ours[a] + theirs[b]) / 2 - stars).square().mean().sqrt()) for a, b in pairs]
    return fmean(alike), fmean(means)


def main(study: Path, first: str, second: str) -> None:
    """Print the table as Markdown."""
    rows = pq.read_table(study / "table.parquet").to_pylist()
    print(
        f"| genre | errors alike: {first} | {second} | one of each | RMSE of means: {first} | {second} | one of each |"
    )
    print("| --- |" + " ---: |" * 6)
    for genre, methods in grouped(rows).items():
        runs = [best(methods[method], "rmse_after", -1)[1] for method in (first, second)]
        test = load_ratings(next(iter(runs[0].values()))["data"], genre=genre).test()
        assert test.labels is not None
        one, other = (answers(study, found, test) for found in runs)
        found = [compared(*pair, test.labels.double()) for pair in ((one, one), (other, other), (one, other))]
        cells = [f"{alike:.4f}" for alike, _ in found] + [f"{error:.4f}" for _, error in found]
        print(f"| {genre} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
