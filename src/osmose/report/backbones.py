"""What a report says of networks that learned without labels."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from osmose.report.charts import clouds, curves
from osmose.report.page import Figure, Section, Tile

NOTHING_READ = "without labels nothing says how good the features are"


def feature_tiles(numbers: Mapping[str, Any]) -> list[Tile]:
    """The numbers that are read first."""
    tiles = []
    for role, found in numbers.get("networks", {}).items():
        for key, name in (("neighbours", "by neighbours"), ("probe", "by a linear classifier")):
            before, after = found[f"{key}_before"], found[f"{key}_after"]
            tone = "gained" if after > before else "lost" if after < before else ""
            tiles.append(Tile(f"{role} {name}, {before:.1f} % before", f"{after:.2f} %", tone))
    if "agreement_after" in numbers:
        tiles.append(Tile("neighbours agree", f"{numbers['agreement_after']:.1f} %"))
    return tiles


def feature_table(numbers: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: for each network the accuracies that are read from its features, before and after."""
    columns = ["", "20 nearest, before", "after", "10 nearest", "30 nearest", "linear probe, before", "after"]
    keys = (
        "neighbours_before", "neighbours_after", "neighbours_10_after", "neighbours_30_after", "probe_before", "probe_after",
    )  # fmt: skip
    rows = [
        [role, *(f"{found[key]:.2f} %" for key in keys)]
        for role, found in numbers.get("networks", {}).items()
    ]  # fmt: skip
    return columns, rows


def feature_sections(
    numbers: Mapping[str, Any], maps: Mapping[str, Tensor], names: Sequence[str] | None
) -> list[Section]:
    """Both networks' features in the plane, how far they look, and the table."""
    networks = numbers.get("networks", {})
    if not networks:
        return []
    columns, rows = feature_table(numbers)
    text = "Test accuracy by votes of the nearest neighbours, and by a linear classifier, on features that no label was used for."
    sections = [Section("What the features tell", text, columns=columns, rows=rows)]
    if maps:
        labels = maps["labels"].tolist()
        figures = [
            Figure(clouds(maps[role].tolist(), labels, names), caption=role) for role in networks if role in maps
        ]
        text = "Some test images by t-SNE: neighbours in the space of features are neighbours here; a colour a class."
        sections.append(Section("The features in the plane", text, figures))
    looked = {}
    for role, found in networks.items():
        for when in ("before", "after"):
            if found.get(f"attention_distance_{when}"):
                looked[f"{role}, {when}"] = list(enumerate(found[f"attention_distance_{when}"], start=1))
    if looked:
        text = "Mean distance between a place and what it attends to; of feature maps by their likeness to themselves."
        drawn = Figure(curves(looked, x="layer", y="pixels"))
        sections.append(Section("How far they look", text, [drawn]))
    return sections
