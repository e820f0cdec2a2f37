"""The page of a comparison: who knows what (arXiv 2310.17653, figs 1a, 1b, 2a and 2b)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from osmose.errors import UserError
from osmose.files import cannot_write, write_atomically
from osmose.report.charts import grid, ranks, scatter
from osmose.report.page import Figure, Section, Tile, page

NUMBERS = "comparison.json"
_ROWS = 100
"""Pairs in the table; of more those with the most positive flips."""
_DRAWN = 5
"""Pairs whose classes are drawn, from the weakest teacher to the strongest."""


def write_comparison(numbers: Mapping[str, Any], folder: Path) -> Path:
    """Write what `osmose.compare` returned, and its page, into a folder.

    Raises:
        UserError: when the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    write_atomically(folder / NUMBERS, json.dumps(numbers, indent=1).encode())
    return report_comparison(folder)


def report_comparison(folder: Path) -> Path:
    """Write report.html from a comparison's numbers.

    Raises:
        UserError: when the folder has none, or cannot be written.
    """
    try:
        numbers = json.loads((folder / NUMBERS).read_text())
    except FileNotFoundError:
        raise UserError(f"{folder} has no {NUMBERS}: give the folder of osmose compare --output") from None
    pairs = sorted(numbers["pairs"], key=lambda pair: pair["accuracy_difference"])
    models, data = numbers["models"], numbers["data"] or "files of logits"
    tiles = [
        Tile("models", str(len(models))),
        Tile("ordered pairs", str(len(pairs))),
        Tile("positive flips, median", f"{median([pair['positive_flips'] for pair in pairs]):.2f} %"),
        Tile("same answer, median", f"{median([pair['agreement'] for pair in pairs]):.1f} %"),
    ]
    sections = [
        *([_ranking(numbers)] if numbers["ranking"] else []),
        _matrix(pairs, [model["model"] for model in models]),
        _against_difference(pairs, numbers["uniform_entropy"]),
        _classes(pairs),
        *_similarity(pairs),
        _models(models),
        _pairs(pairs),
    ]
    subtitle = f"{numbers['samples']} samples of {data}, part {numbers['part']}; {len(numbers['classes'])} classes"
    path = folder / "report.html"
    write_atomically(path, page("Who knows what", subtitle, tiles, sections).encode())
    return path


def _ranking(numbers: Mapping[str, Any]) -> Section:
    rows = [
        [
            str(place), row["teacher"], f"{row['knows']:.2f}", f"{row['positive_flips']:.2f}",
            f"{row['negative_flips']:.2f}", f"{row['accuracy_difference']:+.2f}",
        ]
        for place, row in enumerate(numbers["ranking"], start=1)
    ]  # fmt: skip
    columns = ["", "teacher", "knows", "positive flips", "negative flips", "accuracy"]
    classes = f" of {', '.join(numbers['chosen_classes'])}" if numbers["chosen_classes"] else ""
    text = f"By what they know{classes} and the student does not, in percent of the samples."
    return Section(f"Teachers for {numbers['student']}, best first", text, columns=columns, rows=rows)


def _matrix(pairs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Section:
    values = {(pair["teacher"], pair["student"]): pair["positive_flips"] for pair in pairs}
    text = "Positive flips: samples, in percent, that the row's model gets right and the column's gets wrong."
    table = [[values.get((teacher, student)) for student in names] for teacher in names]
    return Section("What each knows that another does not", text, [Figure(grid(table, names))])


def _against_difference(pairs: Sequence[Mapping[str, Any]], uniform: float) -> Section:
    x = "accuracy of the teacher less the student's, points"
    flips = [(pair["accuracy_difference"], pair["positive_flips"]) for pair in pairs]
    spread = [(pair["accuracy_difference"], pair["entropy"]) for pair in pairs if pair["entropy"] is not None]
    figures = [
        Figure(scatter(flips, x=x, y="positive flips, %"), caption="How much a teacher knows that its student does not")
    ]
    if spread:
        drawn = scatter(spread, x=x, y="entropy, nats", level=("all classes alike", uniform))
        figures.append(Figure(drawn, caption="Over how many classes that spreads"))
    return Section("Strong teachers and weak ones", figures=figures)


def _classes(pairs: Sequence[Mapping[str, Any]]) -> Section:
    lines = {}
    for pair in _chosen([pair for pair in pairs if pair["positive_flips"] > 0]):
        shares = sorted(pair["by_class"].values(), reverse=True)
        lines[_named(pair)] = [100 * share / sum(shares) for share in shares]
    text = "Each pair's positive flips by class, most first, in percent of its flips."
    drawn = (
        [Figure(ranks(lines, range(1, 1 + max(map(len, lines.values()))), x="class, by rank", y="%"))] if lines else []
    )
    return Section("How it spreads over classes", text, drawn)


def _similarity(pairs: Sequence[Mapping[str, Any]]) -> list[Section]:
    shares = [one["share"] for one in pairs[0]["top"]]
    lines = {}
    for kind, weaker in (("weaker teachers", True), ("stronger teachers", False)):
        found = [
            [pair["top"][place]["similarity"] for pair in pairs if (pair["accuracy_difference"] < 0) == weaker]
            for place in range(len(shares))
        ]
        there = [[one for one in values if one is not None] for values in found]
        if any(there):
            lines[kind] = [100 * fmean(values) if values else None for values in there]
    if not lines:
        return []
    text = (
        "How much more alike the names of the classes are that hold so much of a pair's positive flips, over all classes; "
        "mean over the pairs that need more than one class."
    )
    chart = ranks(lines, shares, x="percent of the positive flips", y="more alike, %")
    return [Section("Are these classes related?", text, [Figure(chart)])]


def _models(models: Sequence[Mapping[str, Any]]) -> Section:
    rows = [
        [
            model["model"],
            model["by"],
            f"{model['accuracy']:.2f} %",
            f"{model['parameters']:,}" if model["parameters"] else "",
        ]
        for model in sorted(models, key=lambda model: -model["accuracy"])
    ]
    return Section("Models", columns=["", "answers by", "accuracy", "parameters"], rows=rows)


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> Section:
    shown = sorted(pairs, key=lambda pair: -pair["positive_flips"])[:_ROWS]
    rows = [
        [
            pair["teacher"], pair["student"], f"{pair['positive_flips']:.2f}", f"{pair['negative_flips']:.2f}",
            f"{pair['accuracy_difference']:+.2f}", f"{pair['agreement']:.1f}",
            ", ".join(pair["top"][-1]["classes"][:3]) + (", ..." if len(pair["top"][-1]["classes"]) > 3 else ""),
        ]
        for pair in shown
    ]  # fmt: skip
    text = f"The {_ROWS} of {len(pairs)} pairs with the most positive flips." if len(pairs) > _ROWS else ""
    columns = ["teacher", "student", "positive", "negative", "accuracy", "same answer", "half of the flips"]
    return Section("Pairs", text, columns=columns, rows=rows)


def _chosen(pairs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Some pairs, evenly from the weakest teacher to the strongest."""
    if len(pairs) <= _DRAWN:
        return list(pairs)
    return [pairs[round(place * (len(pairs) - 1) / (_DRAWN - 1))] for place in range(_DRAWN)]


def _named(pair: Mapping[str, Any]) -> str:
    return f"{pair['teacher']} for {pair['student']} ({pair['accuracy_difference']:+.1f})"
