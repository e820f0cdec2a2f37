"""What study mokd-fashion says: each network together and alone, how far two agree, how far their layers look.

    python benchmarks/mokd_tables.py results/mokd-fashion

Means over seeds of the test part, ± standard deviation; of differences the 95 % interval, paired over the seeds that both have.
Agreement: the share of test images for which the neighbours of two networks vote alike; its control is each network of a pair
beside partners trained alone, of which that is the fair one whose accuracy is nearest to its own partner's. The runs' weights
must be there still.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
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
    """Mean and standard deviation; of one value that alone."""
    values = list(values)
    mean = f"{fmean(values):.{digits}f}"
    return f"{mean} ± {stdev(values):.{digits}f}" if len(values) > 1 else mean


def difference(ours: Mapping[int, float], theirs: Mapping[int, float], digits: int = 2) -> str:
    """The mean difference over the seeds that both have, and its interval; nothing for fewer than two."""
    seeds = ours.keys() & theirs.keys()
    if len(seeds) < 2:
        return ""
    mean, reach = paired(*({seed: one[seed] for seed in seeds} for one in (ours, theirs)))
    return f"{mean:+.{digits}f} ({mean - reach:+.{digits}f} to {mean + reach:+.{digits}f})"


def of(runs: Runs, key: str) -> dict[int, float]:
    """A number of every run, by seed."""
    return {seed: row[key] for seed, row in runs.items()}


def gains(pair: str, methods: dict[str, Runs], names: Sequence[str]) -> None:
    """A row a network and way to read it: with each of the methods' names, and what learning together adds to learning alone."""
    for number, name in enumerate(pair.split(" + "), start=1):
        for said, key in READ.items():
            column = f"networks_student{number}_{key}"
            cells = [spread(of(methods[one], column).values()) if one in methods else "" for one in names]
            added = difference(*(of(methods.get(one, {}), column) for one in (TOGETHER, ALONE)))
            print(f"| {name} ({number}) of {pair} | {said} | {' | '.join(cells)} | {added} |")


def agreement(folder: Path, pair: str, methods: dict[str, Runs]) -> None:
    """Both networks of MOKD's pair beside their partner, and beside those of other methods; and each method's own two."""
    for number, name in enumerate(pair.split(" + "), start=1):
        right: dict[str, dict[int, float]] = defaultdict(dict)
        agree: dict[str, dict[int, float]] = defaultdict(dict)
        for seed, together in methods[TOGETHER].items():
            partners = {method: runs[seed] for method, runs in methods.items() if seed in runs}
            files = [f"{row['folder']}/student{3 - number}.safetensors" for row in partners.values()]
            files.insert(0, f"{together['folder']}/student{number}.safetensors")
            found = compare([f"file:{folder / file}" for file in files], part="test")
            asked, *others = found["models"]  # in the order in which they were given
            both = {(row["teacher"], row["student"]): row["agreement"] for row in found["pairs"]}
            for method, model in zip(partners, others, strict=True):
                right[method][seed] = model["accuracy"]
                agree[method][seed] = both[asked["model"], model["model"]]
        means = {method: fmean(values.values()) for method, values in right.items()}
        controls = [method for method in means if method != TOGETHER]
        nearest = min(controls, key=lambda method: abs(means[method] - means[TOGETHER]), default=None)
        for method in means:
            cells = [f"{method}, the nearest" if method == nearest else method]
            cells += [spread(values[method].values()) for values in (right, agree)]
            cells += ["" if method == TOGETHER else difference(agree[TOGETHER], agree[method])]
            cells += [spread(of(methods[method], "agreement_after").values())]
            print(f"| {name} ({number}) of {pair} | {' | '.join(cells)} |")


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
    for pair, methods in pairs.items():
        most = max(map(len, methods.values()))
        for method, runs in methods.items():
            if len(runs) < most:
                print(f"{pair}, {method}: {len(runs)} of {most} seeds are here", file=sys.stderr)
    print(
        f"| network | read by | {' | '.join(names)} | {TOGETHER} less {ALONE} |\n| --- | --- |{' ---: |' * (len(names) + 1)}"
    )
    for pair, methods in pairs.items():
        gains(pair, methods, names)
    print(
        f"\n| network of {TOGETHER} | partner from | its accuracy | agreement | its own partner's less this | of that "
        "method's own two |\n| --- | --- | ---: | ---: | ---: | ---: |"
    )
    for pair, methods in pairs.items():
        if TOGETHER in methods:
            agreement(folder, pair, methods)
    print("\n| network | method | pixels, layer by layer |\n| --- | --- | --- |")
    for pair, methods in pairs.items():
        distances(pair, methods)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
