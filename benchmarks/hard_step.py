"""What a step of HARD's student phase costs over a step of plain distillation, with the same networks and batches.

    python benchmarks/hard_step.py [--pairs 100]

Both run in the engine, step by step in turn, in one process; CPU time. The augmentor is `affine`, of a pool of ten. Target: the
upper end of the ratio's 95 % interval at 1.15.
"""

from typing import Any

from osmose.engine.loop import Engine
from osmose.methods.hard import Hard
from paired import Pair, main

CASES = (("fresh:nix:mlp", "fresh:nix:cnn", 64), ("fresh:zoo:vit-s", "fresh:zoo:cnn-s", 256))


def in_the_students_phase(engine: Engine) -> None:
    """An l_min of 0 keeps it there."""
    if isinstance(engine.method, Hard):
        engine.method.phase = "student"
        engine.method.pool *= 10


def recipes(common: dict[str, Any]) -> Pair:
    """Plain distillation, and HARD."""
    plain = {**common, "method": {"name": "distill", "temperature": 5.0}}
    return plain, {**common, "method": {"name": "hard", "augmentor": "affine", "l_min": 0.0}}, in_the_students_phase


if __name__ == "__main__":
    main(__doc__, {"hard over plain distillation": recipes}, CASES)
