"""Figures and images as text for a page: they follow its colours, light and dark."""

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from textwrap import wrap
from typing import Any

from torch import Tensor

_INK = "#012345"
"""Stands for the page's text colour until the figure is written."""
_NUMBERED = 16
"""Rows and columns of a grid that still has its numbers written into it."""
_NAME = 36
"""Characters of a name beside a row of dots before it goes on in another line."""
GAINED, LOST, NEUTRAL = "#2e8b57", "#d2553d", "#4477aa"
_SERIES = (NEUTRAL, LOST, GAINED, "#aa8844", "#884499", "#55aaaa")
"""Colours of series, one after another and then from the first again."""


class Chart:
    """A figure on its way to a page.

    Attributes:
        axes: matplotlib's axes to draw on.
        svg: the figure, once the block that drew it has ended.
    """

    def __init__(self, axes: Any) -> None:
        self.axes = axes
        self.svg = ""


@contextmanager
def chart(width: float, height: float) -> Iterator[Chart]:
    """Inside the block a figure of so many inches is drawn; then its `svg` stands, in the page's colours, with real text."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    ink = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    text: Any = {"svg.fonttype": "none", "font.size": 9, "text.parse_math": False}
    settings = {**dict.fromkeys(ink, _INK), **text, "svg.hashsalt": "osmose"}
    with rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        made = Chart(figure.subplots())
        made.axes.spines[["top", "right"]].set_visible(False)
        made.axes.patch.set_alpha(0)
        yield made
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = re.sub(r"<metadata>.*?</metadata>", "", text.getvalue(), flags=re.DOTALL).replace(_INK, "currentColor")
    opening = re.compile(r' (?:width|height)="[^"]*pt"')  # the page decides how large it is, by its viewBox
    made.svg = opening.sub("", svg[svg.index("<svg") :], count=2)


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str) -> str:
    """Lines by name, on one pair of axes."""
    with chart(6.4, 2.8) as made:
        for name, points in lines.items():
            colour = {"gained": GAINED, "lost": LOST}.get(name)
            made.axes.plot(*zip(*points, strict=True), label=name, linewidth=1.4, color=colour)
        made.axes.set(xlabel=x, ylabel=y)
        made.axes.xaxis.get_major_locator().set_params(integer=True)
        if len(lines) > 1:
            made.axes.legend(frameon=False)
    return made.svg


def bars(names: Sequence[str], up: Sequence[float], down: Sequence[float], *, x: str) -> str:
    """For each name a bar to the right and one to the left."""
    with chart(6.4, 0.8 + 0.26 * len(names)) as made:
        places = range(len(names))
        made.axes.barh(places, up, color=GAINED, height=0.7)
        made.axes.barh(places, [-value for value in down], color=LOST, height=0.7)
        made.axes.axvline(0, color=_INK, linewidth=0.6)
        made.axes.set_yticks(places, names)
        made.axes.invert_yaxis()
        made.axes.set(xlabel=x)
    return made.svg


def parts(shares: Mapping[str, float]) -> str:
    """One bar, divided."""
    with chart(6.4, 0.9) as made:
        left = 0.0
        for place, (name, share) in enumerate(shares.items()):
            made.axes.barh(0, share, left=left, color=f"C{place}", height=0.8, label=f"{name} {100 * share:.0f} %")
            left += share
        made.axes.set_axis_off()
        made.axes.legend(frameon=False, ncols=4, loc="upper left", bbox_to_anchor=(0, 0))
    return made.svg


def dots(
    names: Sequence[str],
    series: Mapping[str, Sequence[Sequence[float]]],
    *,
    x: str,
    title: str = "",
    logarithmic: bool = False,
) -> str:
    """For each name a row of dots, of each series in a colour of its own, and a line at their median."""
    wrapped = ["\n".join(wrap(name, _NAME)) for name in names]
    lines = sum(1 + name.count("\n") for name in wrapped)
    with chart(6.4, 0.9 + 0.14 * len(names) + 0.18 * lines) as made:
        for number, (name, rows) in enumerate(series.items()):
            colour = _SERIES[number % len(_SERIES)]
            for place, values in enumerate(rows):
                made.axes.plot(values, [place] * len(values), "o", color=colour, markersize=4, alpha=0.6, linewidth=0)
                if len(values) > 1:
                    made.axes.plot([median(values)] * 2, [place - 0.3, place + 0.3], color=_INK, linewidth=1)
            made.axes.plot([], [], "o", color=colour, label=name)
        made.axes.set_yticks(range(len(names)), wrapped)
        made.axes.set_ylim(len(names) - 0.4, -0.6)
        made.axes.set(xlabel=x, xscale="log" if logarithmic else "linear")
        made.axes.set_title(title, loc="left", fontsize=10)
        if not logarithmic and made.axes.get_xlim()[0] < 0 < made.axes.get_xlim()[1]:
            made.axes.axvline(0, color=_INK, linewidth=0.6)
        if len(series) > 1:
            made.axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    return made.svg


def scatter(points: Sequence[tuple[float, float]], *, x: str, y: str, level: tuple[str, float] | None = None) -> str:
    """Points, around x = 0 where a line stands; `level` is a named value of y."""
    with chart(6.4, 2.8) as made:
        made.axes.axvline(0, color=_INK, linewidth=0.6)
        made.axes.scatter(*zip(*points, strict=True), s=14, color=NEUTRAL, alpha=0.7, linewidths=0)
        if level is not None:
            made.axes.axhline(level[1], color=LOST, linewidth=1, linestyle="--", label=level[0])
            made.axes.legend(frameon=False)
        made.axes.set(xlabel=x, ylabel=y)
        made.axes.set_ylim(bottom=0)
    return made.svg


def clouds(points: Sequence[Sequence[float]], labels: Sequence[int], names: Sequence[str] | None) -> str:
    """Points of the plane, each in its class's colour; the names of up to ten classes stand beside."""
    from matplotlib import colormaps

    classes = sorted(set(labels))
    shades = colormaps["tab10" if len(classes) <= 10 else "hsv"]
    with chart(6.4, 4.4) as made:
        for number, label in enumerate(classes):
            some = [point for point, own in zip(points, labels, strict=True) if own == label]
            colour = shades(number if len(classes) <= 10 else number / len(classes))
            name = names[label] if names else str(label)
            made.axes.scatter(*zip(*some, strict=True), s=9, color=colour, alpha=0.8, linewidths=0, label=name)
        made.axes.set_axis_off()
        if len(classes) <= 10:
            made.axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return made.svg


def ranks(lines: Mapping[str, Sequence[float | None]], places: Sequence[int], *, x: str, y: str) -> str:
    """Lines by name over the same places, in colours from weak to strong; None leaves a place out."""
    from matplotlib import colormaps

    shades = colormaps["viridis"]
    with chart(6.4, 3.0) as made:
        for number, (name, values) in enumerate(lines.items()):
            there = [(place, value) for place, value in zip(places, values, strict=True) if value is not None]
            colour = shades(0.3 + 0.6 * number / max(1, len(lines) - 1))
            made.axes.plot(*zip(*there, strict=True), label=name, marker=".", linewidth=1.4, color=colour)
        made.axes.set(xlabel=x, ylabel=y)
        made.axes.legend(frameon=False, fontsize=8)
    return made.svg


def grid(values: Sequence[Sequence[float | None]], names: Sequence[str]) -> str:
    """A square of numbers, a row and a column a name; None leaves a place empty."""
    import numpy as np
    from matplotlib import colormaps

    size = len(names)
    numbers = np.array([[np.nan if one is None else one for one in row] for row in values])
    with chart(6.4, 1.2 + 4.6 * min(1, (size + 2) / 14)) as made:
        shades = colormaps["YlGnBu"]
        made.axes.imshow(numbers, cmap=shades, vmin=0, aspect="auto")
        made.axes.set_xticks(range(size), names, rotation=40, ha="right", rotation_mode="anchor")
        made.axes.set_yticks(range(size), names)
        made.axes.tick_params(length=0, labelsize=8 if size <= _NUMBERED else 4)
        made.axes.spines[:].set_visible(False)
        if size <= _NUMBERED:
            top = np.nanmax(numbers)
            for (row, column), value in np.ndenumerate(numbers):
                if not np.isnan(value):
                    ink = "white" if value > 0.6 * top else "black"
                    made.axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=ink, fontsize=8)
    return made.svg


def picture(image: Tensor) -> str:
    """A uint8 image [C, H, W] as a data URL, of one or three channels (of others the first is shown)."""
    from matplotlib.image import imsave

    pixels = image.permute(1, 2, 0).numpy()
    pixels = pixels if pixels.shape[-1] == 3 else pixels[..., :1].repeat(3, -1)
    return embed(_png(pixels, imsave), "image/png")


def embed(content: bytes, kind: str) -> str:
    """A data URL."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _png(pixels: Any, save: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, pixels, format="png")
    return buffer.getvalue()
