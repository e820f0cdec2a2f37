"""What a step of HARD's student phase costs over a step of plain distillation, with the same networks and batches.

    python benchmarks/hard_step.py [--pairs 100]

Both run in the engine, step by step in turn, in one process; CPU time. The augmentor is `affine`, of a pool of ten. Target: the
upper end of the ratio's 95 % interval at 1.15.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from osmose import recipe
from osmose.engine.fabric import make_fabric, torch_settings
from osmose.engine.folder import RunFolder
from osmose.engine.loop import Engine
from osmose.engine.progress import Progress
from osmose.execution import environment, gather, prepare
from osmose.methods.hard import Hard
from paired import ratio


def made(values: dict[str, Any], folder: Path) -> Engine:
    """An engine that is about to take its first step."""
    settings = recipe.resolve(values)
    run = RunFolder(folder, settings.plain(), owner=False)
    engine = prepare(settings, gather(settings, {}, {}), run, make_fabric(settings), Progress(quiet=True))
    if isinstance(engine.method, Hard):
        engine.method.phase = "student"  # l_min of 0 keeps it there
        engine.method.pool *= 10
    return engine


def measure(student: str, teacher: str, batch_size: int, pairs: int) -> dict[str, Any]:
    """Time `pairs` steps of each, in turn, after five of each that are thrown away."""
    common = {
        "student": student, "teacher": teacher, "threads": 1, "batch_size": batch_size, "epochs": 1000,
        "view": {"colour": 0.0, "grayscale": 0.0},
    }  # fmt: skip
    methods = ({"name": "distill", "temperature": 5.0}, {"name": "hard", "augmentor": "affine", "l_min": 0.0})
    with tempfile.TemporaryDirectory() as folder, torch_settings(recipe.resolve(common)):
        engines = [made({**common, "method": method}, Path(folder)) for method in methods]
        shards = [engine.feed.epoch(0, 0, engine.mine) for engine in engines]
        times: list[list[float]] = []
        for pair in range(pairs + 5):
            taken = [0.0, 0.0]
            for number in (0, 1) if pair % 2 else (1, 0):
                if engines[number].step % len(engines[number].feed) == 0:
                    shards[number] = engines[number].feed.epoch(0, 0, engines[number].mine)
                started = time.process_time()
                engines[number].train_step(shards[number])
                taken[number] = time.process_time() - started
            times.append(taken)
    times = times[5:]
    return {
        "student": student,
        "teacher": teacher,
        "batch_size": batch_size,
        "pairs": pairs,
        "distill_ms": round(1000 * statistics.median(plain for plain, _ in times), 2),
        **ratio(times, 1.98),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    options = parser.parse_args()
    cases = (("fresh:nix:mlp", "fresh:nix:cnn", 64), ("fresh:zoo:vit-s", "fresh:zoo:cnn-s", 256))
    rows = [measure(*case, options.pairs) for case in cases]
    print(
        json.dumps(
            {"rows": rows, "environment": environment(make_fabric(recipe.Recipe(student="fresh:zoo:mlp-xs")))}, indent=2
        )
    )
