"""Does what `osmose compare` says before any transfer predict what a transfer gains? Over the pairs of a study.

python benchmarks/ranking.py results/pairs/table.parquet results/ranking.json

For each student the teachers are ranked by a predictor, from held-out samples, and by the gain that the study measured; the
Spearman correlation of the two, its mean over students, and a 95 % interval by drawing students with replacement. The best
predictor of each method is chosen by the held-out gains of half of the students, and reported on the test gains of the others.
"""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import spearmanr

from osmose.comparison import compare
from osmose.models.zoo import ZOO

METHODS = ("kl", "xe-kl", "kl-dp", "kl-dp-unsupervised")
SEED, DRAWS = 0, 10_000
Gains = Mapping[tuple[str, str], float]


def predictors(folder: Path) -> dict[str, Gains]:
    """What is known of each ordered pair (teacher, student) beforehand, by predictor."""
    numbers = compare(["zoo:*"], part="heldout", keep=folder)
    models = [row["model"] for row in numbers["models"]]
    true: dict[str, NDArray[Any]] = {}
    for name in models:
        table = pq.read_table(folder / f"{name.replace(':', '-')}.parquet").to_pydict()
        chances = softmax(np.array(table["logits"], dtype=np.float64), axis=1)
        true[name] = chances[np.arange(len(chances)), table["label"]]
    found: dict[str, dict[tuple[str, str], float]] = {
        "positive flips": {}, "accuracy difference": {}, "disagreement": {}, "likelihood difference": {}, "better half": {},
    }  # fmt: skip
    for row in numbers["pairs"]:
        pair = row["teacher"], row["student"]
        teacher, student = (true[name] for name in pair)
        found["positive flips"][pair] = row["positive_flips"]
        found["accuracy difference"][pair] = row["accuracy_difference"]
        found["disagreement"][pair] = 100 - row["agreement"]
        found["likelihood difference"][pair] = float(np.mean(np.log(teacher) - np.log(student)))
        found["better half"][pair] = float(np.mean(np.maximum(teacher, student) - student))
    return dict(found)


def correlations(predicted: Gains, measured: Gains, students: Sequence[str]) -> NDArray[np.float64]:
    """For each student the Spearman correlation over its teachers."""
    found = []
    for student in students:
        pairs = [pair for pair in measured if pair[1] == student]
        found.append(spearmanr([predicted[pair] for pair in pairs], [measured[pair] for pair in pairs]).statistic)
    return np.array(found)


def mean_of(values: NDArray[np.float64]) -> dict[str, Any]:
    """The mean over students and its interval."""
    draws = np.random.default_rng(SEED).choice(values, (DRAWS, len(values))).mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"spearman": round(float(values.mean()), 3), "interval": [round(low, 3), round(high, 3)]}


def main(table: str, place: str) -> None:
    """Print and keep every predictor's correlations, and the chosen one's on students it was not chosen on."""
    rows = [row for row in pq.read_table(table).to_pylist() if row["method"] in METHODS]
    students = [f"zoo:{name}" for name in ZOO]
    choosing, reporting = students[::2], students[1::2]
    with tempfile.TemporaryDirectory() as folder:
        known = predictors(Path(folder))
    result: dict[str, Any] = {"students": len(students), "seed": SEED, "methods": {}}
    for method in METHODS:
        test, heldout = (
            {(row["teacher"], row["student"]): row[f"{part}transfer_delta"] for row in rows if row["method"] == method}
            for part in ("", "heldout_")
        )
        everyone = {name: mean_of(correlations(values, test, students)) for name, values in known.items()}
        best = max(known, key=lambda name: correlations(known[name], heldout, choosing).mean())
        result["methods"][method] = {
            "pairs": len(test), "all students": everyone, "chosen": best, "chosen on": choosing,
            "on the others": mean_of(correlations(known[best], test, reporting)),
            "positive flips on the others": mean_of(correlations(known["positive flips"], test, reporting)),
        }  # fmt: skip
        print(method, json.dumps(result["methods"][method], indent=1))
    Path(place).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
