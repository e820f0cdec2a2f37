"""What a step of distillation costs with the teacher in bfloat16, over the same step with the teacher in float32.

    python benchmarks/frozen_precision.py [--pairs 100]

Both run in the engine, step by step in turn, in one process; CPU time, one thread; the students are in float32.
"""

from typing import Any

from paired import Pair, main

CASES = (
    ("fresh:nix:mlp", "fresh:nix:cnn", 64),
    ("fresh:zoo:vit-s", "fresh:zoo:cnn-s", 256),
    ("fresh:zoo:cnn-s", "fresh:zoo:vit-m", 256),
)


def recipes(common: dict[str, Any]) -> Pair:
    """The teacher in float32, and in bfloat16."""
    plain = {**common, "method": {"name": "distill"}}
    return plain, {**plain, "frozen_precision": "bf16-mixed"}, lambda engine: None


if __name__ == "__main__":
    main(__doc__, {"bfloat16 over float32": recipes}, CASES)
