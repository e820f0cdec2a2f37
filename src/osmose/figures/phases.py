"""Two players' losses and whose turn it was, on one axis of steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from osmose.figures.canvas import canvas


def draw_phases(path: Path, lines: Sequence[Mapping[str, Any]], losses: Mapping[str, str], turn: str) -> None:
    """The logged losses against steps, over a grey background where the player's turn was.

    Args:
        path: the file.
        lines: those of metrics.jsonl.
        losses: for each logged number what it is called.
        turn: the logged share of steps that were the player's; more than half is grey.
    """
    logged = [line for line in lines if turn in line]
    with canvas(path, size=(8, 3.6)) as [[axes]]:
        for key, name in losses.items():
            points = [(line["step"], line[key]) for line in logged if key in line]
            if points:
                axes.plot(*zip(*points, strict=True), label=name, linewidth=1, marker=".", markersize=3)
        for first, last in _spans(logged, turn):
            axes.axvspan(first, last, color="0.9", linewidth=0)
        if any(line.get(key, 0) > 0 for line in logged for key in losses):
            axes.set_yscale("symlog", linthresh=1e-3)
        axes.set(xlabel="optimiser step", ylabel="loss", title="grey: the student's phase")
        axes.title.set_fontsize(9)
        if axes.lines:
            axes.legend(fontsize=8, frameon=False)


def _spans(lines: Sequence[Mapping[str, Any]], turn: str) -> list[tuple[int, int]]:
    """First and last step of every uninterrupted stretch in which `turn` is more than half."""
    spans: list[tuple[int, int]] = []
    before = 0
    for line in lines:
        if line[turn] > 0.5:
            if spans and spans[-1][1] == before:
                spans[-1] = (spans[-1][0], line["step"])
            else:
                spans.append((before, line["step"]))
        before = line["step"]
    return spans
