"""What a step of MOKD costs, over the sum of the steps of DINO with the same two networks and crops.

    python benchmarks/mokd_step.py [--pairs 40]

Both run in the engine, step by step in turn, in one process; CPU time, one thread, seed 0. DINO trains both networks side by side
in one step, each by itself; MOKD adds T-Heads, what each learns of the other's twin, and the search.
"""

import argparse
import json
from typing import Any

import torch

from osmose import recipe
from osmose.engine.fabric import make_fabric
from osmose.measure import environment
from paired import compare_steps

PAIRS = (("resnet-s", "vit-s"), ("resnet-s", "resnet-s"), ("vit-s", "vit-s"))
HEADS = {"outputs": 1024, "mlp_head": {"hidden": 256, "bottleneck": 64}}
T_HEAD = {"layers": 1, "heads": 4, "ratio": 2, "width": 64}
VARIANTS: dict[str, dict[str, Any]] = {
    "cross-distillation by features alone": {"t_head": None},
    "T-Heads, without search": {"t_head": T_HEAD, "search": "none"},
    "whole, search as in the paper": {"t_head": T_HEAD},
    "whole, search as in the public code": {"t_head": T_HEAD, "search": "code"},
}


def main() -> None:
    """Print the ratios and the machine as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    options = parser.parse_args()
    rows = []
    for networks in PAIRS:
        common: dict[str, Any] = {
            "student": [f"fresh:zoo:{name}" for name in networks], "threads": 1, "epochs": 1000, "batch_size": 64,
            "view": {"locals": 4, "local_size": 14, "blur": [0.0, 0.0, 0.0]},
        }  # fmt: skip
        for name, settings in VARIANTS.items():
            alone = {**common, "method": {"name": "dino", **HEADS}}
            both = {**common, "method": {"name": "mokd", **HEADS, **settings}}
            found = compare_steps(alone, both, options.pairs, lambda engine: None)
            rows.append({"networks": networks, "mokd": name, **found})
    torch.set_num_threads(1)  # as the steps have it, by their recipes
    made_on = environment(make_fabric(recipe.Recipe(student="fresh:zoo:mlp-xs", threads=1)))
    print(json.dumps({"rows": rows, "environment": made_on}, indent=2))


if __name__ == "__main__":
    main()
