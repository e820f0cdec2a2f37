"""What the whole study `pairs` costs with live teachers and with stored signals, from some of its pairs.

    python benchmarks/pair_table.py [--pairs 24] [--steps 15]

Of evenly chosen ordered pairs of the zoo the CPU time of a step of KL and of KL+DP is taken, live and stored in turn, and summed
up to the study's 72 pairs, ten epochs and four methods (XE-KL costs what KL does, the label-free KL+DP what KL+DP does); with
stores the time to build those of nine networks and ten views comes once. One thread.
"""

import argparse
import json
import statistics
import tempfile
import time
from itertools import permutations
from pathlib import Path
from typing import Any

from osmose import grid, recipe, stores
from osmose.engine.fabric import make_fabric, torch_settings
from osmose.measure import environment
from osmose.models.zoo import ZOO
from paired import engine_step, in_turn

METHODS = {"teacher": 2, "partition": 2}
"""Targets, and how many of the study's methods cost what each does."""


def main() -> None:
    """Measure, and print the sums and the machine as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--steps", type=int, default=15)
    options = parser.parse_args()
    base = recipe.merge(grid.load("pairs")["base"], {"threads": 1, "view": {"count": 1}})
    every = list(permutations(ZOO, 2))
    chosen = [every[place * len(every) // options.pairs] for place in range(options.pairs)]
    settings = recipe.resolve({**base, "student": "zoo:cnn-s"})
    steps = settings.epochs * (12_000 // settings.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        built = build(base, folder)
        live = stored = 0.0
        for student, teacher in chosen:
            for target, count in METHODS.items():
                seconds = step_seconds(base, f"zoo:{student}", f"zoo:{teacher}", target, folder, options.steps)
                live, stored = live + count * steps * seconds[0], stored + count * steps * seconds[1]
    scale = len(every) / len(chosen)
    found = {"live_hours": scale * live / 3600, "stored_hours": scale * stored / 3600, "building_hours": built / 3600}
    found["ratio"] = (found["stored_hours"] + found["building_hours"]) / found["live_hours"]
    about = {
        "pairs": len(chosen),
        "steps_of_each": options.steps,
        "environment": environment(make_fabric(settings)),
    }
    print(json.dumps({**{key: round(value, 3) for key, value in found.items()}, **about}, indent=1))


def build(base: dict[str, Any], folder: str) -> float:
    """CPU seconds to build the stores of the zoo, of as many views as there are epochs, from one view."""
    epochs, started = recipe.resolve({**base, "student": "zoo:cnn-s"}).epochs, time.process_time()
    for name in ZOO:
        values = {**base, "student": f"zoo:{name}", "teacher": f"zoo:{name}", "signals": {"store": folder}}
        stores.build(recipe.resolve(recipe.merge(values, {"method": {"target": "teacher"}})), quiet=True)
    return epochs * (time.process_time() - started)


def step_seconds(
    base: dict[str, Any], student: str, teacher: str, target: str, store: str, steps: int
) -> tuple[float, float]:
    """Median CPU seconds of a step with live teachers, and of one with stored signals."""
    live = recipe.merge({**base, "student": student, "teacher": teacher}, {"method": {"target": target}})
    stored = {**live, "signals": {"store": store}}
    if target == "partition":  # the initial student's are kept under its own role
        stores.build(recipe.resolve(stored), quiet=True)
    with tempfile.TemporaryDirectory() as folder, torch_settings(recipe.resolve(live)):
        times = in_turn((engine_step(live, Path(folder)), engine_step(stored, Path(folder))), steps)
    first, second = zip(*times, strict=True)
    return statistics.median(first), statistics.median(second)


if __name__ == "__main__":
    main()
