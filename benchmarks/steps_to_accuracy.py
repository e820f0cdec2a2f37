"""After how many optimiser steps the runs of a study reached an accuracy on held-out samples, by method.

python benchmarks/steps_to_accuracy.py results/hard-mnist 97
"""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq

from osmose.figures.accuracy import curve, steps_to


def main(study: Path, accuracy: float) -> None:
    """Print each method's steps, a number a run whose metrics are there; None where it was not reached."""
    methods: dict[str, list[int | None]] = {}
    for row in pq.read_table(study / "table.parquet").to_pylist():
        metrics = study / row["folder"] / "metrics.jsonl"
        if metrics.exists():
            found = curve(map(json.loads, metrics.read_text().splitlines()))
            methods.setdefault(row["method"], []).append(steps_to(accuracy, found))
    for method, steps in methods.items():
        print(method, *steps)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
