"""What a step of HARD's student phase costs over a step of plain distillation, with the same networks and batches.

    python benchmarks/hard_step.py [--pairs 100]

Both run in the engine, step by step in turn, in one process; CPU time. The augmentor is `affine`, of a pool of ten. Target: the
upper end of the ratio's 95 % interval at 1.15.
"""

import argparse
import json

from osmose import recipe
from osmose.engine.fabric import make_fabric
from osmose.engine.loop import Engine
from osmose.measure import environment
from osmose.methods.hard import Hard
from paired import compare_steps

CASES = (("fresh:nix:mlp", "fresh:nix:cnn", 64), ("fresh:zoo:vit-s", "fresh:zoo:cnn-s", 256))


def in_the_students_phase(engine: Engine) -> None:
    """An l_min of 0 keeps it there."""
    if isinstance(engine.method, Hard):
        engine.method.phase = "student"
        engine.method.pool *= 10


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    options = parser.parse_args()
    rows = []
    for student, teacher, batch_size in CASES:
        common = {
            "student": student, "teacher": teacher, "threads": 1, "batch_size": batch_size, "epochs": 1000,
            "view": {"colour": 0.0, "grayscale": 0.0},
        }  # fmt: skip
        plain = {**common, "method": {"name": "distill", "temperature": 5.0}}
        hard = {**common, "method": {"name": "hard", "augmentor": "affine", "l_min": 0.0}}
        measured = compare_steps(plain, hard, options.pairs, in_the_students_phase)
        rows.append({"student": student, "teacher": teacher, "batch_size": batch_size, **measured})
    made_on = environment(make_fabric(recipe.Recipe(student="fresh:zoo:mlp-xs")))
    print(json.dumps({"rows": rows, "environment": made_on}, indent=2))
