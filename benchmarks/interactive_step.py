"""What a step of interactive communication with one round costs, over a step of plain distillation with the same networks.

    python benchmarks/interactive_step.py [--pairs 100]

Both run in the engine, step by step in turn, in one process; CPU time, one thread; teachers live, and from a store of one view.
"""

import tempfile
from functools import partial
from typing import Any

from osmose import recipe, stores
from paired import Pair, main

CASES = (("zoo:vit-s", "zoo:vit-m", 128), ("zoo:vit-s", "zoo:cnn-s", 128), ("zoo:resnet-s", "zoo:vit-m", 128))


def recipes(common: dict[str, Any], *, rounds: int, stored: bool, width: int = 64) -> Pair:
    """Plain distillation, and interactive communication."""
    optimiser = {"name": "sgd", "lr": 0.001}
    common = {**common, "view": {**common["view"], "count": 1}}
    pair = []
    for method in ({"name": "distill"}, {"name": "interactive", "rounds": rounds, "message": {"width": width}}):
        values = {**common, "method": {**method, "optimiser": optimiser}}
        if stored:
            values["signals"] = {"store": tempfile.mkdtemp(prefix="osmose-signals-")}
            stores.build(recipe.resolve(values), quiet=True)
        pair.append(values)
    return pair[0], pair[1], lambda engine: None


COMPARED = {
    f"{rounds} rounds, {'stored' if stored else 'live'}": partial(recipes, rounds=rounds, stored=stored)
    for rounds in (0, 1, 3)
    for stored in (False, True)
} | {"1 rounds, 256 numbers": partial(recipes, rounds=1, stored=False, width=256)}

if __name__ == "__main__":
    main(__doc__, COMPARED, CASES)
