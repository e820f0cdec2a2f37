"""What a step of distillation from stored signals costs, and of live distillation, over a step with labels alone.

    python benchmarks/stored_signals.py [--pairs 100]

Both run in the engine, step by step in turn, in one process; CPU time, one thread; the same student, samples and views. The
signals of two views of all samples are built before. Target: the ratio's upper end at 1.05 where signals are stored.
"""

import tempfile
from functools import partial
from typing import Any

from osmose import recipe, stores
from paired import Pair, main

CASES = (
    ("zoo:resnet-s", "zoo:cnn-s", 128),
    ("zoo:vit-m", "zoo:resnet-s", 128),
    ("zoo:cnn-s", "zoo:mixer-s", 128),
    ("zoo:mlp-xs", "zoo:cnn-s", 128),
)


def recipes(common: dict[str, Any], *, target: str, stored: bool) -> Pair:
    """Labels alone, and distillation."""
    optimiser = {"name": "sgd", "lr": 0.001}
    common = {**common, "view": {**common["view"], "count": 2}}
    labels = {**common, "teacher": None, "method": {"name": "supervised", "optimiser": optimiser}}
    taught = {**common, "method": {"name": "distill", "target": target, "optimiser": optimiser}}
    if stored:
        taught["signals"] = {"store": tempfile.mkdtemp(prefix="osmose-signals-")}
        stores.build(recipe.resolve(taught), quiet=True)
    return labels, taught, lambda engine: None


COMPARED = {
    f"{target}, {'stored' if stored else 'live'}": partial(recipes, target=target, stored=stored)
    for target in ("teacher", "partition")
    for stored in (True, False)
}

if __name__ == "__main__":
    main(__doc__, COMPARED, CASES)
