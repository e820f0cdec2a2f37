"""What a report says of a language model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from osmose.report.page import Section, Tile

SCORES = {
    "perplexity": ("perplexity of a token", "{:.4g}"),
    "word_perplexity": ("perplexity of a word", "{:.4g}"),
    "bits_per_byte": ("bits a byte", "{:.3f}"),
    "token_accuracy": ("next tokens right", "{:.2f} %"),
    "last_word_accuracy": ("last words right", "{:.2f} %"),
}
"""What people read of text, and how: heading and format by key."""


def text_tiles(numbers: Mapping[str, Any]) -> list[Tile]:
    """The numbers that are read first."""
    before, after = numbers["perplexity_before"], numbers["perplexity_after"]
    tiles = [
        Tile("perplexity before", f"{before:.4g}"),
        Tile("perplexity after", f"{after:.4g}", "gained" if after < before else "lost" if after > before else ""),
        Tile("tokens newly right", f"{numbers['knowledge_gain']:.2f} %", "gained"),
        Tile("tokens newly wrong", f"{numbers['knowledge_loss']:.2f} %", "lost"),
    ]
    for role, kept in retentions(numbers).items():
        if "token_accuracy" in kept:
            tiles.append(Tile(f"of {role}'s right tokens", f"{kept['token_accuracy']:.1f} %"))
    return tiles


def text_scores(numbers: Mapping[str, Any]) -> list[Section]:
    """A table of all scores, of each text that the models were tested on."""
    sections = []
    for name, found in {numbers["data"]: numbers, **(numbers.get("others") or {})}.items():
        columns, rows = score_table(found)
        text = (
            ""
            if found is numbers
            else "Another text, which nobody was trained on in this run: what was forgotten of it?"
        )
        sections.append(Section(f"On {name}", text, columns=columns, rows=rows))
    return sections


def score_table(numbers: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: each score before, after, of each teacher, and how much of the teacher's the student has."""
    teachers = list(retentions(numbers))
    rows = []
    for key, (heading, form) in SCORES.items():
        values = [numbers[f"{key}_before"], numbers[f"{key}_after"], *(numbers[role][key] for role in teachers)]
        rows.append([heading, *map(form.format, values)])
        for role in teachers:
            kept = numbers[f"retention_of_{role}"].get(key)
            rows[-1].append("" if kept is None else f"{kept:.1f} %")
    return ["", "before", "after", *teachers, *(f"after, of {role}" for role in teachers)], rows


def retentions(numbers: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """How much of each teacher's scores the student has, by the teacher's role."""
    start = "retention_of_"
    return {key.removeprefix(start): value for key, value in numbers.items() if key.startswith(start)}


def text_passages(folder: Path) -> list[Section]:
    """Some blocks of the test part with the tokens that are newly right and newly wrong."""
    path = folder / "passages.json"
    if not path.exists():
        return []
    text = "Blocks of the test part. Marked are tokens whose best guess is newly right (green) and newly wrong (red)."
    return [Section("Token by token", text, passages=json.loads(path.read_text()))]
