"""The page of a study: its methods side by side, and every run."""

from collections.abc import Sequence
from pathlib import Path

from osmose import table
from osmose.files import write_atomically
from osmose.report.charts import dots, embed
from osmose.report.page import Figure, Section, Tile, page

_LARGE = 25.0
"""Points of change beyond which the accuracy itself is drawn: of students that begin with new weights."""


def report_study(folder: Path) -> Path:
    """Write report.html from a study's table.parquet.

    Raises:
        UserError: when tables cannot be read, or the page cannot be written.
    """
    rows, about = table.read(folder)
    summary = table.summarise(rows)
    tiles = [
        Tile("runs", about.get("Runs", str(len(rows)))),
        Tile("methods", str(len(dict.fromkeys(map(_label, rows))))),
        Tile("seeds", ", ".join(str(seed) for seed in sorted({one["seed"] for one in rows}))),
    ]
    headings, texts, _ = table.cells(summary, table.SUMMARY)
    legend = table.LEGEND if any("delta_mean" in one for one in summary) else "Means and deviations over runs."
    sections = [
        Section("Run by run", figures=_figures(rows)) if rows else Section("No run has finished"),
        *_curves(folder),
        Section("Methods", legend, columns=headings, rows=texts),
    ]
    headings, texts, _ = table.cells(rows, table.RUNS)
    note = "Measured on the test part, accuracies in percent of samples; table.parquet has every column."
    sections.append(Section("Runs", note, columns=headings, rows=texts))
    subtitle = "; ".join(
        f"{heading.lower()}: {value}" for heading, value in about.items() if heading not in ("Runs", "Seeds")
    )
    path = folder / "report.html"
    write_atomically(path, page(f"Study {folder.resolve().name}", subtitle, tiles, sections).encode())
    return path


def _figures(rows: Sequence[table.Row]) -> list[Figure]:
    """A dot a run, in the order of the methods."""
    if any("rmse_after" in one for one in rows):
        found = {"root mean squared error": "rmse_after"}
        x = "root mean squared error on the test part, stars"
    elif any("neighbours_after" in one for one in rows):
        roles = [role for role in ("student", "student1", "student2") if f"networks_{role}_probe_after" in rows[0]]
        found = {f"linear classifier, {role}": f"networks_{role}_probe_after" for role in roles}
        x = "test accuracy read from features, %"
    elif any("mse_after" in one for one in rows):
        found = {"mean squared error": "mse_after"}
        x = "mean squared error on the test part"
    elif any("perplexity_after" in one for one in rows):
        found = {"perplexity": "perplexity_after"}
        x = "perplexity of a token on the test part"
    else:
        large = any(abs(one.get("transfer_delta", 0.0)) > _LARGE for one in rows)
        found = {"accuracy": "accuracy_after"} if large else {"change": "transfer_delta"}
        if any("corrupted_after" in one for one in rows) and large:
            found["on corrupted images"] = "corrupted_after"
        x = "test accuracy, %" if large else "change of the test accuracy, points"
    labels = list(dict.fromkeys(map(_label, rows)))
    series = {
        name: [[one[key] for one in rows if _label(one) == label and key in one] for label in labels]
        for name, key in found.items()
    }
    return [Figure(dots(labels, series, x=x, logarithmic="mean squared error" in found))]


def _curves(folder: Path) -> list[Section]:
    path = folder / "accuracy.svg"
    if not path.exists():
        return []
    drawn = Figure(
        source=embed(path.read_bytes(), "image/svg+xml"), caption="Held-out accuracy: mean and range over the runs"
    )
    return [Section("How they learned", figures=[drawn])]


def _label(one: table.Row) -> str:
    return ", ".join(filter(None, [one["method"], one["settings"]]))
