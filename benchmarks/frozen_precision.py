"""What a step of distillation costs with the teacher in bfloat16, over the same step with the teacher in float32.

    python benchmarks/frozen_precision.py [--pairs 100]

Both run in the engine, step by step in turn, in one process; CPU time, one thread; the students are in float32.
"""

import argparse
import json

from osmose import recipe
from osmose.engine.fabric import make_fabric
from osmose.measure import environment
from paired import compare_steps

CASES = (
    ("fresh:nix:mlp", "fresh:nix:cnn", 64),
    ("fresh:zoo:vit-s", "fresh:zoo:cnn-s", 256),
    ("fresh:zoo:cnn-s", "fresh:zoo:vit-m", 256),
)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    options = parser.parse_args()
    rows = []
    for student, teacher, batch_size in CASES:
        plain = {
            "student": student, "teacher": teacher, "threads": 1, "batch_size": batch_size, "epochs": 1000,
            "view": {"colour": 0.0, "grayscale": 0.0}, "method": {"name": "distill"},
        }  # fmt: skip
        measured = compare_steps(plain, {**plain, "frozen_precision": "bf16-mixed"}, options.pairs)
        rows.append({"student": student, "teacher": teacher, "batch_size": batch_size, **measured})
    made_on = environment(make_fabric(recipe.Recipe(student="fresh:zoo:mlp-xs")))
    print(json.dumps({"rows": rows, "environment": made_on}, indent=2))
