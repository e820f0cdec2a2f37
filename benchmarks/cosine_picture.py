"""The picture of the toy of HARD (arXiv 2305.14890, figure 2): what each method's students say of every number.

    python benchmarks/cosine_picture.py results/hard-cosine docs/images/hard-cosine.svg

The runs' students must be there; `osmose study hard-cosine --output results/hard-cosine` makes them.
"""

import sys
from pathlib import Path

import torch

from osmose.data import load_data
from osmose.figures.canvas import canvas
from osmose.models import load_model

METHODS = {"plain": "plain distillation", "mixup": "Mixup", "noise-1.25": "Gaussian noise", "hard": "HARD"}
REACH = 10


def draw(study: Path, path: Path) -> None:
    """A panel a method: the cosine, the training points, and a line for each seed's student."""
    x = torch.linspace(-REACH, REACH, 801)
    data = load_data("cosine")
    points = data.train.inputs.read(torch.arange(len(data.train))).flatten().unique()
    with canvas(path, rows=1, columns=len(METHODS), size=(11, 2.6)) as axes, torch.no_grad():
        for place, (method, name) in zip(axes.flat, METHODS.items(), strict=True):
            folders = sorted((study / "runs").glob(f"*-{method}-seed*/student.safetensors"))
            if not folders:
                raise SystemExit(f"{study} has no students of {method}: run the study first")
            for file in folders:
                place.plot(
                    x,
                    load_model(f"file:{file}").answer(x.view(-1, 1, 1, 1)).flatten(),
                    color="tab:blue",
                    alpha=0.5,
                    lw=0.8,
                )
            place.plot(x, x.cos(), color="0.3", lw=1.2, ls="--")
            place.plot(points, points.cos(), "o", color="tab:red", ms=3)
            place.set_ylim(-4, 4)
            place.set_title(f"{name}, {len(folders)} seeds", fontsize=9)
            place.tick_params(labelsize=7)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
