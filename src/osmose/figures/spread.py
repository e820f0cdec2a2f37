"""How random quantities changed over time: their middle and the range of most of their draws."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from osmose.figures.canvas import canvas


def draw_spread(path: Path, steps: Sequence[int], quantities: Mapping[str, Sequence[Tensor]]) -> None:
    """A panel a quantity: the median over its draws at each step, in a band from their 10th to their 90th percentile.

    Args:
        path: the file.
        steps: when the draws were made.
        quantities: for each name, with its unit, as many tensors of draws [n] as there are steps.
    """
    columns = (len(quantities) + 1) // 2
    with canvas(path, rows=2, columns=columns, size=(2.7 * columns, 4.2)) as axes:
        for place in axes.flat[len(quantities) :]:
            place.set_visible(False)
        for place, (name, draws) in zip(axes.flat, quantities.items(), strict=False):
            low, middle, high = torch.stack(list(draws)).float().quantile(torch.tensor([0.1, 0.5, 0.9]), dim=1)
            place.fill_between(steps, low, high, alpha=0.25, linewidth=0)
            place.plot(steps, middle, marker=".", markersize=4, linewidth=1)
            place.set_title(name, fontsize=9)
            place.tick_params(labelsize=7)
        axes.flat[len(quantities) - 1].set_xlabel("optimiser step", fontsize=8)
