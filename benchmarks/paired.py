"""Two recipes' steps in turn in one process, and the ratio of their times."""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t

from osmose import recipe
from osmose.engine.fabric import make_fabric, torch_settings
from osmose.engine.folder import RunFolder
from osmose.engine.loop import Engine
from osmose.engine.progress import Progress
from osmose.execution import gather, prepare
from osmose.measure import environment

Pair = tuple[dict[str, Any], dict[str, Any], Callable[[Engine], None]]
"""Two recipes, and what is done to each engine before its first step."""


def ratio(times: Sequence[Sequence[float]]) -> dict[str, object]:
    """The geometric mean of second / first over pairs, and its 95 % interval by Student's t."""
    logs = [math.log(second / first) for first, second in times]
    quantile = float(t.ppf(0.975, len(logs) - 1))
    mean, half = statistics.mean(logs), quantile * statistics.stdev(logs) / math.sqrt(len(logs))
    return {
        "ratio": round(math.exp(mean), 4),
        "ratio_95": [round(math.exp(mean - half), 4), round(math.exp(mean + half), 4)],
    }


def in_turn(steps: tuple[Callable[[], object], Callable[[], object]], pairs: int) -> list[list[float]]:
    """CPU seconds of each of two steps, taken in turn, after five of each that are thrown away."""
    times: list[list[float]] = []
    for pair in range(pairs + 5):
        taken = [0.0, 0.0]
        for number in (0, 1) if pair % 2 else (1, 0):
            started = time.process_time()
            steps[number]()
            taken[number] = time.process_time() - started
        times.append(taken)
    return times[5:]


def compare_steps(
    first: dict[str, Any], second: dict[str, Any], pairs: int, ready: Callable[[Engine], None]
) -> dict[str, Any]:
    """CPU times of a step of each of two recipes.

    Args:
        first: the recipe that is compared with.
        second: the other.
        pairs: steps of each, at least 2.
        ready: done to each engine before its first step.

    Returns:
        The median milliseconds of the first, and the ratio of second to first with its 95 % interval.
    """
    with tempfile.TemporaryDirectory() as folder, torch_settings(recipe.resolve(first)):
        times = in_turn((engine_step(first, Path(folder), ready), engine_step(second, Path(folder), ready)), pairs)
    return {
        "pairs": pairs,
        "first_ms": round(1000 * statistics.median(one for one, _ in times), 2),
        **ratio(times),
    }


def main(
    doc: str | None, recipes: Mapping[str, Callable[[dict[str, Any]], Pair]], cases: Sequence[tuple[str, str, int]]
) -> None:
    """Compare two recipes' steps for each student, teacher and batch size, and print the rows and the machine as JSON.

    Args:
        doc: what the command says of itself.
        recipes: by name, from what a case has in common the two recipes and what is done to each engine before its first step.
        cases: student, teacher and batch size of each row.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    options = parser.parse_args()
    rows = []
    for student, teacher, batch_size in cases:
        case = {"student": student, "teacher": teacher, "batch_size": batch_size}
        common = {**case, "threads": 1, "epochs": 1000, "view": {"colour": 0.0, "grayscale": 0.0}}
        for name, made in recipes.items():
            first, second, ready = made(common)
            rows.append({**case, "compared": name, **compare_steps(first, second, options.pairs, ready)})
    made_on = environment(make_fabric(recipe.Recipe(student="fresh:zoo:mlp-xs")))
    print(json.dumps({"rows": rows, "environment": made_on}, indent=2))


def engine_step(
    values: dict[str, Any], folder: Path, ready: Callable[[Engine], None] = lambda engine: None
) -> Callable[[], None]:
    """An optimiser step of a recipe in the engine, to be called again and again, over epochs of its data."""
    engine = make_engine(recipe.resolve(values), folder)
    ready(engine)
    shards = engine.feed.epoch(0, 0, engine.mine)

    def step() -> None:
        nonlocal shards
        if engine.step % len(engine.feed) == 0:
            shards = engine.feed.epoch(0, 0, engine.mine)
        engine.train_step(shards)

    return step


def make_engine(settings: recipe.Recipe, folder: Path) -> Engine:
    """The engine that trains a recipe, before its first step."""
    run = RunFolder(folder, settings.plain(), owner=False)
    return prepare(settings, gather(settings, {}, {}), run, make_fabric(settings), Progress(quiet=True))
