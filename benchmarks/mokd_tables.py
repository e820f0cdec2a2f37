"""What studies of MOKD say: each network's features by method, how far two agree, how far their layers look.

    python benchmarks/mokd_tables.py results/mokd-fashion --agreement mokd
    python benchmarks/mokd_tables.py results/mokd-fashion results/mokd-terms --less mokd
    python benchmarks/mokd_tables.py results/mokd-cifar10-small --apart self-both

Means over seeds of the test part, ± standard deviation; of differences to a method the 95 % interval, paired over the seeds that
both have. Agreement: the share of test images for which the neighbours of two networks vote alike; its control is each network
of a pair beside partners of other methods, of which that is the fair one whose accuracy is nearest to its own partner's. For it
the runs' weights must be there still. Apart: a method in which networks do not hear each other; a network of one name and place
among those of its name is then the same beside any partner, so that its runs are compared with those of all pairs.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pyarrow.parquet as pq
import yaml

from genre_table import paired
from osmose.comparison import compare

READ = {"neighbours": "neighbours_after", "linear": "probe_after"}
COLUMNS = {f"{said} {number}": f"networks_student{number}_{key}" for number in (1, 2) for said, key in READ.items()}

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


def gains(pair: str, methods: dict[str, Runs], base: str) -> None:
    """A row a method: what is read of both networks, and how much more than of the method `base`."""
    for method, runs in methods.items():
        cells = []
        for column in COLUMNS.values():
            values = of(runs, column)
            added = "" if method == base else difference(values, of(methods.get(base, {}), column))
            cells.append(spread(values.values()) + (added and f"; {added}"))
        print(f"| {pair} | {method} | {len(runs)} | {' | '.join(cells)} |")


def agreement(pair: str, methods: dict[str, Runs], asked_of: str) -> None:
    """Both networks of a method's pair beside their partner, and beside those of other methods; and each method's own two."""
    for number, name in enumerate(pair.split(" + "), start=1):
        right: dict[str, dict[int, float]] = defaultdict(dict)
        agree: dict[str, dict[int, float]] = defaultdict(dict)
        for seed, together in methods[asked_of].items():
            partners = {method: runs[seed] for method, runs in methods.items() if seed in runs}
            files = [f"{row['folder']}/student{3 - number}.safetensors" for row in partners.values()]
            files.insert(0, f"{together['folder']}/student{number}.safetensors")
            data = yaml.safe_load((together["folder"] / "recipe.yaml").read_text())["data"]
            found = compare([f"file:{file}" for file in files], data=data, part="test")
            asked, *others = found["models"]  # in the order in which they were given
            both = {(row["teacher"], row["student"]): row["agreement"] for row in found["pairs"]}
            for method, model in zip(partners, others, strict=True):
                right[method][seed] = model["accuracy"]
                agree[method][seed] = both[asked["model"], model["model"]]
        means = {method: fmean(values.values()) for method, values in right.items()}
        controls = [method for method in means if method != asked_of]
        nearest = min(controls, key=lambda method: abs(means[method] - means[asked_of]), default=None)
        for method in means:
            cells = [f"{method}, the nearest" if method == nearest else method]
            cells += [spread(values[method].values()) for values in (right, agree)]
            cells += ["" if method == asked_of else difference(agree[asked_of], agree[method])]
            cells += [spread(of(methods[method], "agreement_after").values())]
            print(f"| {name} ({number}) of {pair} | {' | '.join(cells)} |")


def whose(pair: str) -> list[tuple[str, int]]:
    """Of both networks of a pair the name, and how many before it have that name."""
    names = pair.split(" + ")
    return [(name, names[:place].count(name)) for place, name in enumerate(names)]


def apart(pairs: Mapping[str, Mapping[str, Runs]], method: str) -> None:
    """A row a network and other method: its accuracies less those by a method in which it does not hear its partner."""
    networks = [(pair, number, network) for pair in pairs for number, network in enumerate(whose(pair), start=1)]
    for said in READ:
        own: dict[tuple[str, int], dict[int, float]] = defaultdict(dict)
        for pair, number, network in networks:
            own[network] |= of(pairs[pair].get(method, {}), COLUMNS[f"{said} {number}"])
        for pair, number, network in networks:
            for other in (one for one in pairs[pair] if one != method):
                less = difference(of(pairs[pair][other], COLUMNS[f"{said} {number}"]), own[network])
                print(f"| {network[0]} ({number}) of {pair} | {said} | {other} | {less} |")


def distances(pair: str, methods: dict[str, Runs]) -> None:
    """A row a network and method: the mean distance that each layer attends over."""
    for number, name in enumerate(pair.split(" + "), start=1):
        for method, runs in methods.items():
            key = f"networks_student{number}_attention_distance_after_"
            layers = [column for column in next(iter(runs.values())) if column.startswith(key)]
            looked = [spread(of(runs, layer).values()) for layer in layers if None not in of(runs, layer).values()]
            print(f"| {name} ({number}) of {pair} | {method} | {', '.join(looked)} |")


def read(folders: Iterable[Path]) -> dict[str, dict[str, Runs]]:
    """The runs of several studies by pair, "resnet-s + vit-s", method and seed."""
    pairs: dict[str, dict[str, Runs]] = defaultdict(lambda: defaultdict(dict))
    for folder in folders:
        for row in pq.read_table(folder / "table.parquet").to_pylist():
            row["folder"] = folder / row["folder"]
            runs = pairs[row["student"].replace("fresh:zoo:", "")][row["method"]]
            if row["seed"] in runs:
                sys.exit(
                    f"{row['method']} of {row['student']} has several runs of seed {row['seed']}: this table is of one each"
                )
            runs[row["seed"]] = row
    return pairs


def main(folders: Sequence[Path], base: str, asked_of: Sequence[str], deaf: Sequence[str] = ()) -> None:
    """Print the tables as Markdown."""
    pairs = read(folders)
    methods = {method for found in pairs.values() for method in found}
    for name in (base, *asked_of, *deaf):
        if name not in methods:
            sys.exit(f"there is no method {name}: give one of {', '.join(sorted(methods))}")
    print(f"| pair | method | seeds | {' | '.join(f'{column}; less {base}' for column in COLUMNS)} |")
    print(f"| --- | --- | ---: |{' ---: |' * len(COLUMNS)}")
    for pair, found in pairs.items():
        gains(pair, found, base)
    print("\n| network | method | pixels, layer by layer |\n| --- | --- | --- |")
    for pair, found in pairs.items():
        distances(pair, found)
    for method in deaf:
        print(f"\n| network | read by | method | less {method} |\n| --- | --- | --- | ---: |")
        apart(pairs, method)
    if asked_of:
        columns = (
            "network | partner from | its accuracy | agreement | its own partner's less this | that method's own two"
        )
        print(f"\n| {columns} |")
        print("| --- | --- | ---: | ---: | ---: | ---: |")
    for pair, found in pairs.items():
        for method in asked_of:
            if method in found:
                agreement(pair, found, method)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--less", default="alone")
    parser.add_argument("--agreement", nargs="*", default=())
    parser.add_argument("--apart", nargs="*", default=())
    options = parser.parse_args()
    main(options.folders, options.less, options.agreement, options.apart)
