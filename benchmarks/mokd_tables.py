"""What study mokd-fashion says: each network together and alone, how far two agree, how far their layers look.

    python benchmarks/mokd_tables.py results/mokd-fashion

Means over seeds of the test part, ± standard deviation; of differences the 95 % interval, paired over seeds. Agreement: the share
of test images for which the neighbours of two networks vote alike; its control is each network of a pair beside partners trained
alone, of which that is fair whose accuracy is nearest. The runs' weights must be there still.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pyarrow.parquet as pq

from genre_table import paired
from osmose.comparison import compare

TOGETHER, ALONE = "mokd", "alone"
READ = {"neighbours": "neighbours_after", "linear classifier": "probe_after"}

Runs = dict[int, dict[str, Any]]
"""The rows of one method and pair, by seed."""


def spread(values: Iterable[float], digits: int = 2) -> str:
    """Mean and standard deviation."""
    values = list(values)
    return f"{fmean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def of(runs: Runs, key: str) -> dict[int, float]:
    """A number of every run, by seed."""
    return {seed: row[key] for seed, row in runs.items()}


def gains(pair: str, methods: dict[str, Runs], names: Sequence[str]) -> None:
    """A row a network and way to read it: with each of the methods' names, and what learning together adds to learning alone."""
    for number, name in enumerate(pair.split(" + "), start=1):
        for said, key in READ.items():
            column = f"networks_student{number}_{key}"
            cells = [spread(of(methods[one], column).values()) if one in methods else "" for one in names]
            added, reach = paired(of(methods[TOGETHER], column), of(methods[ALONE], column))
            interval = f"{added:+.2f} ({added - reach:+.2f} to {added + reach:+.2f})"
            print(f"| {name} ({number}) of {pair} | {said} | {' | '.join(cells)} | {interval} |")


def agreement(folder: Path, pair: str, methods: dict[str, Runs]) -> None:
    """Both networks of MOKD's pair beside their partner, and beside those of other methods; and each method's own two."""
    for number, name in enumerate(pair.split(" + "), start=1):
        right, agree = defaultdict(list), defaultdict(list)
        for seed, together in methods[TOGETHER].items():
            partners = [
                f"file:{folder / runs[seed]['folder']}/student{3 - number}.safetensors" for runs in methods.values()
            ]
            asked = f"file:{folder / together['folder']}/student{number}.safetensors"
            found = compare([asked, *partners], part="test")
            # Ordered pairs come by their first model, whose partners stand in the order of the models.
            for method, model, both in zip(methods, found["models"][1:], found["pairs"], strict=False):
                right[method].append(model["accuracy"])
                agree[method].append(both["agreement"])
        for method, runs in methods.items():
            own = spread(of(runs, "agreement_after").values())
            print(
                f"| {name} ({number}) of {pair} | {method} | {spread(right[method])} | {spread(agree[method])} | {own} |"
            )


def distances(pair: str, methods: dict[str, Runs]) -> None:
    """A row a network and method: the mean distance that each layer attends over."""
    for number, name in enumerate(pair.split(" + "), start=1):
        for method, runs in methods.items():
            key = f"networks_student{number}_attention_distance_after_"
            layers = [column for column in next(iter(runs.values())) if column.startswith(key)]
            looked = [spread(of(runs, layer).values()) for layer in layers if None not in of(runs, layer).values()]
            print(f"| {name} ({number}) of {pair} | {method} | {', '.join(looked)} |")


def main(folder: Path) -> None:
    """Print the three tables as Markdown."""
    pairs: dict[str, dict[str, Runs]] = defaultdict(lambda: defaultdict(dict))
    for row in pq.read_table(folder / "table.parquet").to_pylist():
        pairs[row["student"].replace("fresh:zoo:", "")][row["method"]][row["seed"]] = row
    names = list(dict.fromkeys(name for methods in pairs.values() for name in methods))
    print(
        f"| network | read by | {' | '.join(names)} | {TOGETHER} less {ALONE} |\n| --- | --- |{' ---: |' * (len(names) + 1)}"
    )
    for pair, methods in pairs.items():
        gains(pair, methods, names)
    print(
        f"\n| network of {TOGETHER} | partner from | its accuracy | agreement | of that method's own two |\n"
        "| --- | --- | ---: | ---: | ---: |"
    )
    for pair, methods in pairs.items():
        agreement(folder, pair, methods)
    print("\n| network | method | pixels, layer by layer |\n| --- | --- | --- |")
    for pair, methods in pairs.items():
        distances(pair, methods)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
