"""The page of a study: its methods side by side, and every run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from osmose import table
from osmose.files import write_atomically
from osmose.report.charts import dots, embed
from osmose.report.page import Figure, Section, Tile, page

_LARGE = 25.0
"""Points of change beyond which the accuracy itself is drawn: of students that begin with new weights."""
_MANY = 40
"""Rows of a table beyond which it is folded away."""

_CHOSEN = " Bold: the best on the held-out part."


_Groups = dict[str, dict[str, list[table.Row]]]
"""Rows by the choice of the data and by variant; every variant is there for each choice."""


@dataclass(frozen=True)
class _Measure:
    """What runs are read by.

    Attributes:
        name: of the measure where a figure shows several.
        key: its column in the table.
        axis: what it is, and its unit; {} stands for the part of the data.
        falls: whether less is better.
    """

    name: str
    key: str
    axis: str
    falls: bool = False


def report_study(folder: Path) -> Path:
    """Write report.html from a study's table.parquet.

    Raises:
        UserError: when tables cannot be read, or the page cannot be written.
    """
    rows, about = table.read(folder)
    groups = _grouped(rows)
    variants = list(next(iter(groups.values()), {}))
    tiles = [
        Tile("runs", about.get("Runs", str(len(rows)))),
        Tile("methods", str(len(variants))),
        Tile("seeds", ", ".join(str(seed) for seed in sorted({one["seed"] for one in rows}))),
    ]
    tried = any(_own(one) for one in rows)
    sections = [
        *(_glances(groups, _measures(rows), tried) if tried or len(groups) > 1 else []),
        *(_drawn(groups, _measures(rows), tried) if rows else [Section("No run has finished")]),
        *_curves(folder),
        _methods(rows),
        _runs(rows),
    ]
    subtitle = "; ".join(
        f"{heading.lower()}: {value}" for heading, value in about.items() if heading not in ("Runs", "Seeds")
    )
    path = folder / "report.html"
    write_atomically(path, page(f"Study {folder.resolve().name}", subtitle, tiles, sections).encode())
    return path


def _measures(rows: Sequence[table.Row]) -> list[_Measure]:
    """What the runs of a study have been read by, which is the same for all."""
    if any("rmse_after" in one for one in rows):
        return [_Measure("error", "rmse_after", "root mean squared error on the {} part, stars", falls=True)]
    if any("neighbours_after" in one for one in rows):
        roles = [f"student{number}" for number in table.NUMBERS if f"networks_student{number}_probe_after" in rows[0]]
        axis = "accuracy read from features of the {} part, %"
        return [_Measure(f"linear classifier, {role}", f"networks_{role}_probe_after", axis) for role in roles]
    if any("mse_after" in one for one in rows):
        return [_Measure("error", "mse_after", "mean squared error on the {} part", falls=True)]
    if any("perplexity_after" in one for one in rows):
        return [_Measure("perplexity", "perplexity_after", "perplexity of a token on the {} part", falls=True)]
    if not any(abs(one.get("transfer_delta", 0.0)) > _LARGE for one in rows):
        return [_Measure("change", "transfer_delta", "change of accuracy on the {} part, points")]
    found = [_Measure("accuracy", "accuracy_after", "accuracy on the {} part, %")]
    if any("corrupted_after" in one for one in rows):
        found.append(_Measure("on corrupted images", "corrupted_after", "accuracy on the {} part, %"))
    return found


def _drawn(groups: _Groups, measures: Sequence[_Measure], tried: bool) -> list[Section]:
    """A dot a run, in the order of the methods; a figure for each choice of the data. Nothing where nothing was measured."""
    part = "held-out" if tried and any(_there(groups, one, "held-out") for one in measures) else "test"
    measures = [one for one in measures if _there(groups, one, part)]
    if not measures:
        return []
    axis, logarithmic = measures[0].axis.format(part), any(one.key == "mse_after" for one in measures)
    figures = []
    for place, variants in groups.items():
        series = {one.name: list(_values(variants, one, part).values()) for one in measures}
        if not any(some for values in series.values() for some in values):
            continue
        figures.append(Figure(dots(list(variants), series, x=axis, title=place, logarithmic=logarithmic)))
    return [Section("Run by run", figures=figures)]


def _glances(groups: _Groups, measures: Sequence[_Measure], tried: bool) -> list[Section]:
    """For each measure and part of the data a table, variants down and choices of the data across.

    Where settings were tried, what is best on the held-out part is in bold.
    """
    names = list(next(iter(groups.values())))
    sections = []
    for measure in measures:
        found = (_values(variants, measure, "held-out") for variants in groups.values() if tried)
        chosen = [_best(values, measure.falls) for values in found]
        for part in ("test", "held-out"):
            if not _there(groups, measure, part):
                continue
            columns = [_values(variants, measure, part) for variants in groups.values()]
            title = measure.axis.format(part)
            sections.append(
                Section(
                    title[0].upper() + title[1:] + (f": {measure.name}" if len(measures) > 1 else ""),
                    "Mean over runs, ± their standard deviation." + (_CHOSEN if any(chosen) else ""),
                    columns=["", *(place or "all" for place in groups)],
                    rows=[[one, *(_spread(measure.key, values[one]) for values in columns)] for one in names],
                    strong={(names.index(one), column) for column, one in enumerate(chosen, 1) if one},
                )
            )
    return sections


def _methods(rows: Sequence[table.Row]) -> Section:
    summary = table.summarise(rows)
    legend = table.LEGEND if any("delta_mean" in one for one in summary) else "Means and deviations over runs."
    return _table("Methods", legend, summary, table.SUMMARY)


def _runs(rows: Sequence[table.Row]) -> Section:
    note = "Measured on the test part, accuracies in percent of samples; table.parquet has every column."
    return _table("Runs", note, rows, table.RUNS)


def _table(title: str, text: str, rows: Sequence[table.Row], columns: Mapping[str, str]) -> Section:
    headings, texts, numeric = table.cells(rows, columns)
    return Section(title, text, columns=headings, rows=texts, numeric=numeric, folded=len(texts) > _MANY)


def _curves(folder: Path) -> list[Section]:
    path = folder / "accuracy.svg"
    if not path.exists():
        return []
    drawn = Figure(
        source=embed(path.read_bytes(), "image/svg+xml"),
        caption="Held-out accuracy: mean and range over the runs of a method",
    )
    return [Section("How they learned", figures=[drawn])]


def _grouped(rows: Sequence[table.Row]) -> _Groups:
    labels = [(_place(one), _variant(one)) for one in rows]
    variants = dict.fromkeys(variant for _, variant in labels)
    groups: _Groups = {place: {variant: [] for variant in variants} for place, _ in labels}
    for one, (place, variant) in zip(rows, labels, strict=True):
        groups[place][variant].append(one)
    return groups


def _there(groups: _Groups, measure: _Measure, part: str) -> bool:
    return any(some for variants in groups.values() for some in _values(variants, measure, part).values())


def _values(variants: Mapping[str, Sequence[table.Row]], measure: _Measure, part: str) -> dict[str, list[float]]:
    """By variant what its runs have."""
    key = table.PARTS[part] + measure.key
    return {variant: [one[key] for one in rows if key in one] for variant, rows in variants.items()}


def _best(values: Mapping[str, Sequence[float]], falls: bool) -> str | None:
    """The variant with the best mean, of those with as many runs as any."""
    most = max(map(len, values.values()))
    means = {one: fmean(some) for one, some in values.items() if some and len(some) == most}
    means = {one: mean for one, mean in means.items() if math.isfinite(mean)}
    return min(means, key=lambda one: means[one] if falls else -means[one], default=None)


def _spread(key: str, values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = table.shown(key, fmean(values))
    if len(values) == 1 or not all(map(math.isfinite, values)):
        return mean
    return f"{mean} ± {table.shown(key, stdev(values)).removeprefix('+')}"


def _own(one: table.Row) -> dict[str, str]:
    """The settings that the study varies, those of the data left out."""
    return {key: value for key, value in table.settings(one).items() if not _of_data(key)}


def _of_data(key: str) -> bool:
    return key.split(".")[0] == "data"


def _variant(one: table.Row) -> str:
    """The method with its own settings."""
    return table.named(one["method"], _own(one))


def _place(one: table.Row) -> str:
    """What the method is tried on: the choice of the data; and the networks, whose features are not to be thrown together."""
    chosen = [value for key, value in table.settings(one).items() if _of_data(key)]
    return ", ".join([one["student"], *chosen] if "neighbours_after" in one else chosen)
