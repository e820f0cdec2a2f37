"""What the engine costs over a hand-written loop of the same epoch, paired and interleaved in one process.

    python benchmarks/overhead.py [--pairs 40]

An epoch is timed, in the engine with everything that belongs to it: metrics, progress, the checkpoint at its end. Two pairs are
timed. With `resnet-s` and teacher `cnn-s` a step takes well over 50 ms: there the ratio of CPU times counts (target: upper end
of its 95 % interval at 1.03). With `mlp-xs` as both, and 375 steps of 32 samples, it takes almost nothing: there the
difference is the engine's Python (target: 0.3 ms a step).
Both loops read the same samples, see the same views, run the same teacher and take the same KL step.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from osmose import recipe
from osmose.data.loader import Loader
from osmose.engine.fabric import make_fabric, torch_settings
from osmose.engine.folder import RunFolder
from osmose.engine.progress import Progress
from osmose.execution import gather, prepare
from osmose.measure import environment
from osmose.tasks import Task
from paired import ratio


def by_hand(task: Task, settings: recipe.Recipe) -> Callable[[], None]:
    """An epoch as a loop that one writes in an afternoon."""
    student, teacher = task.student.train(), task.teachers["teacher1"].eval().requires_grad_(False)
    optimiser = torch.optim.SGD(student.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-3)
    loader = Loader(task.data.train, batch_size=settings.batch_size, seed=0)

    def epoch() -> None:
        for index, images, *_ in loader.epoch(0):
            x = settings.view(images, index, 0)
            with torch.no_grad():
                target = F.log_softmax(teacher(x).logits, -1)
            loss = F.kl_div(F.log_softmax(student(x).logits, -1), target, log_target=True, reduction="batchmean")
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()

    return epoch


def by_engine(task: Task, settings: recipe.Recipe, folder: Path) -> Callable[[], object]:
    """The engine's run of one epoch."""
    run = RunFolder(folder, settings.plain(), owner=True)
    run.path.mkdir()
    engine = prepare(settings, task, run, make_fabric(settings), Progress(quiet=True))
    engine.evaluate = None
    return engine.fit


def timed(epoch: Callable[[], object]) -> float:
    """CPU seconds an epoch takes."""
    started = time.process_time()
    epoch()
    return time.process_time() - started


def measure(student: str, teacher: str, batch_size: int, pairs: int) -> dict[str, Any]:
    """Time one pair in both loops, in turn, the order of each pair alternating; the first pair is thrown away."""
    values = {
        "student": f"fresh:zoo:{student}", "teacher": f"fresh:zoo:{teacher}", "method": "distill", "threads": 1, "epochs": 1,
        "batch_size": batch_size,
    }  # fmt: skip
    settings = recipe.resolve(values)
    times: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder, torch_settings(settings):
        for pair in range(pairs + 1):
            task = gather(settings, {}, {})
            steps = len(task.data.train) // settings.batch_size
            loops = [by_hand(task, settings), by_engine(gather(settings, {}, {}), settings, Path(folder) / str(pair))]
            order = (0, 1) if pair % 2 else (1, 0)
            taken = {number: timed(loops[number]) for number in order}
            times.append((taken[0], taken[1]))
    times = times[1:]
    extra = [1000 * (engine - hand) / steps for hand, engine in times]
    return {
        "student": student,
        "teacher": teacher,
        "pairs": pairs,
        "steps_an_epoch": steps,
        "hand_ms_a_step": round(1000 * statistics.median(hand for hand, _ in times) / steps, 2),
        **ratio(times),
        "extra_ms_a_step_median": round(statistics.median(extra), 3),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    options = parser.parse_args()
    rows = [measure(*pair, options.pairs) for pair in (("resnet-s", "cnn-s", 256), ("mlp-xs", "mlp-xs", 32))]
    fabric = make_fabric(recipe.Recipe(student="fresh:zoo:mlp-xs"))
    print(json.dumps({"rows": rows, "environment": environment(fabric)}, indent=2))
