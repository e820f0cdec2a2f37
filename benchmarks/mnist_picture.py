"""Draws docs/images/hard-mnist.svg: centred and moved digits under each method of the study hard-mnist.

python benchmarks/mnist_picture.py results/hard-mnist/table.parquet docs/images/hard-mnist.svg
"""

import sys
from pathlib import Path

import pyarrow.parquet as pq

from osmose.figures.canvas import canvas

METHODS = {
    "student-alone": "student alone", "distillation": "distillation", "distillation-8-epochs": "distillation, 8 epochs",
    "hard-affine": "HARD, l_min 5 %", "hard-affine-longer": "HARD, l_min 1 %", "random-affine": "random affine",
    "shifts": "the test's own shifts",
}  # fmt: skip
ORBIT = 96.48
"""Moved digits, the same networks: Orbit, from the public notebooks of Nix et al. (2022)."""


def draw(table: Path, path: Path) -> None:
    """A dot a seed, centred and moved."""
    rows = pq.read_table(table).to_pylist()
    teacher = next(row["corrupted_teacher1"] for row in rows if row["corrupted_teacher1"] is not None)
    with canvas(path, size=(7, 3.2)) as [[axes]]:
        for place, method in enumerate(METHODS):
            for key, colour in (("accuracy_after", "tab:blue"), ("corrupted_after", "tab:red")):
                values = [row[key] for row in rows if row["method"] == method]
                axes.plot(values, [place] * len(values), "o", color=colour, ms=5, alpha=0.6)
        for x, name, style in ((teacher, "teacher, moved", ":"), (ORBIT, "Orbit, moved (published)", "--")):
            axes.axvline(x, color="0.4", ls=style, lw=1, label=name)
        axes.plot([], [], "o", color="tab:blue", label="centred")
        axes.plot([], [], "o", color="tab:red", label="moved")
        axes.set_yticks(range(len(METHODS)), METHODS.values())
        axes.invert_yaxis()
        axes.set(xlabel="test accuracy, %", xlim=(30, 100))
        axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
