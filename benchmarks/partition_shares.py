"""Whom does the partition without labels trust? For every ordered pair of the zoo, the share of its positive and of its
negative flips that goes to the teacher, on the training part and on held-out samples.

python benchmarks/partition_shares.py results/partition_shares.json
"""

import json
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import pyarrow.parquet as pq
import torch
from torch import Tensor

from osmose.comparison import compare
from osmose.targets import partition

PARTS: tuple[Literal["train", "heldout"], ...] = ("train", "heldout")


def shares(folder: Path, part: Literal["train", "heldout"]) -> list[dict[str, Any]]:
    """One row a pair: its flips in percent of the samples, and of each kind the percentage that goes to the teacher."""
    numbers = compare(["zoo:*"], part=part, keep=folder)
    logits, labels = {}, torch.empty(0)
    for row in numbers["models"]:
        table = pq.read_table(folder / f"{row['model'].replace(':', '-')}.parquet").to_pydict()
        logits[row["model"]], labels = torch.tensor(table["logits"]), torch.tensor(table["label"])
    return [
        {
            "teacher": pair["teacher"], "student": pair["student"], "accuracy_difference": pair["accuracy_difference"],
            **trusted(logits[pair["teacher"]], logits[pair["student"]], labels),
        }
        for pair in numbers["pairs"]
    ]  # fmt: skip


def trusted(teacher: Tensor, student: Tensor, labels: Tensor) -> dict[str, float]:
    """Of the positive and of the negative flips the percentage that the partition without labels gives to the teacher."""
    knows, learns = (logits.argmax(-1) == labels for logits in (teacher, student))
    given = partition(student, teacher).source == 1
    found = {"given": float(given.double().mean()) * 100}
    for name, flips in (("positive", knows & ~learns), ("negative", learns & ~knows)):
        found[f"{name}_flips"] = float(flips.double().mean()) * 100
        found[f"{name}_given"] = float(given[flips].double().mean()) * 100
    return found


def main(place: str) -> None:
    """Print the means and keep every pair's shares."""
    result: dict[str, Any] = {}
    for part in PARTS:
        with tempfile.TemporaryDirectory() as folder:
            rows = shares(Path(folder), part)
        for name, chosen in (
            ("all", rows),
            ("stronger teachers", [row for row in rows if row["accuracy_difference"] > 0]),
            ("weaker teachers", [row for row in rows if row["accuracy_difference"] < 0]),
        ):
            numbers = {
                key: [round(mean([row[key] for row in chosen]), 1), round(stdev([row[key] for row in chosen]), 1)]
                for key in ("positive_given", "negative_given", "given")
            }
            print(part, name, len(chosen), numbers)
            result.setdefault(part, {})[name] = {"pairs": len(chosen), "mean and deviation over pairs": numbers}
        result[part]["pairs"] = rows
    Path(place).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
