"""Trains the packaged zoo: each network with its family's recipe until 20 more epochs of it no longer help.

    python benchmarks/zoo.py [NAME ...] [--runs DIR] [--weights DIR]

After the recipe's epochs come rounds of 20 more, each from the weights of the round before. The weights that a round improves on
the held-out part by 0.1 point or less are the ones packaged. The test part decides nothing; its accuracy is only recorded.
"""

import argparse
from pathlib import Path
from typing import Any

from osmose import api, recipe
from osmose.models import load_model
from osmose.models.zoo import ZOO

MORE_EPOCHS = 20
LIMIT = 0.1
"""Points on the held-out part that a round may still gain when training ends."""


def train(name: str, runs: Path, weights: Path) -> str:
    """Train and package one network; returns a line for people."""
    packaged = "zoo-cnn" if ZOO[name].family == "cnn" else "zoo-attention"
    values = recipe.merge(recipe.load(packaged), {"student": f"fresh:zoo:{name}"})
    rounds = [api.run(values, output=runs / name / "0", quiet=False)]
    while len(rounds) < 2 or heldout(rounds[-1]) - heldout(rounds[-2]) > LIMIT:
        more = recipe.merge(
            values, {"student": f"file:{rounds[-1].folder}", "epochs": MORE_EPOCHS, "seed": len(rounds)}
        )
        rounds.append(api.run(more, output=runs / name / str(len(rounds)), quiet=False))
    kept, after = rounds[-2], rounds[-1]
    network = load_model(f"file:{kept.folder}")
    network.name = f"zoo:{name}"
    network.save(
        weights / f"{name}.safetensors",
        test_accuracy=kept.numbers["accuracy_after"],
        heldout_accuracy=heldout(kept),
        recipe={"name": packaged, "epochs": values["epochs"] + MORE_EPOCHS * (len(rounds) - 2), "seed": 0},
        gain_of_20_more_epochs=round(heldout(after) - heldout(kept), 3),
        device=kept.numbers["environment"]["device"],
    )
    return f"{name}: test {kept.numbers['accuracy_after']:.2f} held-out {heldout(kept):.2f} after {len(rounds) - 2} more rounds"


def heldout(result: api.Result) -> float:
    """Held-out accuracy after the last epoch, in percent."""
    numbers: dict[str, Any] = result.numbers["heldout"]
    return float(numbers["accuracy_after"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks of the zoo (default: all)")
    parser.add_argument("--runs", type=Path, default=Path("runs/zoo"))
    parser.add_argument("--weights", type=Path, default=Path("src/osmose/models/zoo/weights"))
    options = parser.parse_args()
    for name in options.names or list(ZOO):
        print(train(name, options.runs, options.weights))
