"""Accuracy against optimiser steps, of several methods."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from osmose.figures.canvas import canvas

Curve = list[tuple[int, float]]
"""Steps, and the held-out accuracy after each, in percent."""


def curve(lines: Iterable[Mapping[str, Any]]) -> Curve:
    """The held-out accuracy of a run after each epoch, from the lines of its metrics.jsonl."""
    return [(line["step"], line["heldout_accuracy"]) for line in lines if "heldout_accuracy" in line]


def steps_to(accuracy: float, found: Curve) -> int | None:
    """The first step after which the accuracy was reached; None where it never was."""
    return next((step for step, value in found if value >= accuracy), None)


def draw_accuracy(path: Path, methods: Mapping[str, Sequence[Curve]]) -> None:
    """For each method the mean over its runs, in a band from the lowest to the highest.

    Args:
        path: the file.
        methods: the curves of each method's runs; where they have other steps, only the steps that all have are drawn.
    """
    from matplotlib import rcParams
    from matplotlib.rcsetup import cycler

    with canvas(path, size=(7.6, 3.8)) as [[axes]]:
        axes.set_prop_cycle(cycler(linestyle=["-", "--", ":"]) * rcParams["axes.prop_cycle"])
        for name, curves in methods.items():
            runs = [dict(found) for found in curves]
            steps = sorted(set.intersection(*map(set, runs))) if runs else []
            if not steps:
                continue
            values = [[run[step] for run in runs] for step in steps]
            (line,) = axes.plot(steps, [sum(value) / len(value) for value in values], label=name, linewidth=1.2)
            axes.fill_between(
                steps, list(map(min, values)), list(map(max, values)), color=line.get_color(), alpha=0.2, linewidth=0
            )
        axes.set(xlabel="optimiser step", ylabel="held-out accuracy, %")
        if axes.lines:
            axes.figure.legend(loc="outside right upper", fontsize=8, frameon=False)
