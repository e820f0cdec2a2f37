"""What the engine costs over a hand-written loop of the same step, paired and interleaved in one process.

    python benchmarks/overhead.py [--pairs 40]

Two pairs are timed. With `resnet-s` and teacher `cnn-s` a step takes well over 50 ms: there the ratio of CPU times counts
(target: upper end of its 95 % interval at 1.03). With `mlp-xs` as both it takes almost nothing: there the difference is the
engine's Python (target: 0.3 ms a step).
Both loops read the same samples, see the same views, run the same teacher and take the same KL step.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from osmose import recipe
from osmose.data.loader import Loader
from osmose.engine.fabric import make_fabric
from osmose.engine.folder import RunFolder
from osmose.engine.progress import Progress
from osmose.execution import Cast, environment, gather, prepare

STEPS = 4
"""Optimiser steps in one timing."""


def by_hand(cast: Cast, settings: recipe.Recipe) -> Callable[[], None]:
    """The same transfer as a loop that one writes in an afternoon; each call takes one step."""
    student, teacher = cast.student.train(), cast.teachers["teacher1"].eval().requires_grad_(False)
    optimiser = torch.optim.SGD(student.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-3)
    loader = Loader(cast.data.train, batch_size=settings.batch_size, seed=0)

    def steps() -> Iterator[None]:
        for epoch in range(10**6):
            for index, images, _ in loader.epoch(epoch):
                x = settings.view(images, index, epoch)
                with torch.no_grad():
                    target = F.log_softmax(teacher(x).logits, -1)
                loss = F.kl_div(F.log_softmax(student(x).logits, -1), target, log_target=True, reduction="batchmean")
                loss.backward()
                optimiser.step()
                optimiser.zero_grad()
                yield

    taken = steps()
    return lambda: next(taken)


def by_engine(cast: Cast, settings: recipe.Recipe, folder: Path) -> Callable[[], None]:
    """The engine's own step."""
    fabric = make_fabric(settings)
    engine = prepare(settings, cast, RunFolder(folder, {}, owner=False), fabric, Progress(quiet=True))

    def shards() -> Iterator[Any]:
        for epoch in range(10**6):
            yield from engine.feed.epoch(epoch, 0, [0])

    taken = shards()
    return lambda: engine.train_step(taken)


def timed(step: Callable[[], None]) -> float:
    """CPU seconds a step."""
    started = time.process_time()
    for _ in range(STEPS):
        step()
    return (time.process_time() - started) / STEPS


def measure(student: str, teacher: str, pairs: int) -> dict[str, Any]:
    """Time one pair in both loops, in turn, the order of each pair alternating."""
    values = {"student": f"fresh:zoo:{student}", "teacher": f"fresh:zoo:{teacher}", "method": "distill", "threads": 1}
    settings = recipe.resolve(values)
    with tempfile.TemporaryDirectory() as folder:
        loops = [
            by_hand(gather(settings, {}, {}), settings),
            by_engine(gather(settings, {}, {}), settings, Path(folder)),
        ]
        for loop in loops:
            timed(loop)
        times: list[tuple[float, float]] = []
        for pair in range(pairs):
            order = (0, 1) if pair % 2 else (1, 0)
            taken = {number: timed(loops[number]) for number in order}
            times.append((taken[0], taken[1]))
        ratios = [math.log(engine / hand) for hand, engine in times]
        extra = [1000 * (engine - hand) for hand, engine in times]
        half = 2.03 * statistics.stdev(ratios) / math.sqrt(pairs)
        mean = statistics.mean(ratios)
        return {
            "student": student,
            "teacher": teacher,
            "pairs": pairs,
            "steps_a_timing": STEPS,
            "hand_ms": round(1000 * statistics.median(hand for hand, _ in times), 2),
            "ratio": round(math.exp(mean), 4),
            "ratio_95": [round(math.exp(mean - half), 4), round(math.exp(mean + half), 4)],
            "extra_ms_median": round(statistics.median(extra), 3),
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    options = parser.parse_args()
    rows = [measure(*pair, options.pairs) for pair in (("resnet-s", "cnn-s"), ("mlp-xs", "mlp-xs"))]
    fabric = make_fabric(recipe.Recipe(student="fresh:zoo:mlp-xs", threads=1))
    print(json.dumps({"rows": rows, "environment": environment(fabric)}, indent=2))
