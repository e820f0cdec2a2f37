"""A study's table: one row a run, a summary per method, written as parquet and markdown."""

import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from osmose.errors import missing_extra
from osmose.files import write_atomically

Row = dict[str, Any]

PARTS = {"test": "", "held-out": "heldout_", "test, chosen epoch": "chosen_"}
"""What a summary is made for, and the prefix of its columns: both parts after the last epoch, and the test part after the
epoch that was best on the held-out part."""

LEGEND = """\
Success rate of a student: the share of its teachers with a positive transfer delta. Its median is over students; pooled is over
all pairs. A pair's delta, gain and loss are means over its seeds; seed sd is the standard deviation between a pair's seeds
(root mean square over pairs). Better and worse: the share of runs, seeds counted singly, whose change McNemar's test finds
significant (p < 0.05). After is the mean accuracy; corrupted that on corrupted test images, with its deviation over runs. Deltas
in points, all else in percent. A control without a teacher counts each student as one pair."""

NUMBERS = ("", *map(str, range(1, 10)))
"""Behind "student": of a lone network, and of several that learn side by side; of more than nine the tables show nine."""
SUMMARY = {
    "on": "part", "method": "method", "settings": "settings", "networks": "networks", "students": "students",
    "pairs": "pairs", "runs": "runs",
    "success, median": "success_rate_median", "pooled": "success_rate_pooled", "delta, mean": "delta_mean",
    "median": "delta_median", "min": "delta_min", "max": "delta_max", "seed sd": "delta_seed_sd",
    "better": "significantly_better", "worse": "significantly_worse", "gain": "gain_mean", "loss": "loss_mean",
    "after": "accuracy_mean", "corrupted": "corrupted_mean", "its sd": "corrupted_sd",
    "mse, median": "mse_median", "smallest": "mse_min", "largest": "mse_max",
    "rmse": "rmse_mean", "s.e.": "rmse_se",
    **{f"{text}{number}": f"student{number}_{key}" for number in NUMBERS for text, key in (
        ("neighbours ", "neighbours_mean"), ("sd of n", "neighbours_sd"), ("linear ", "probe_mean"), ("sd of l", "probe_sd"),
    )},
    "agreement": "agreement_mean", "sd of a": "agreement_sd",
    "perplexity": "perplexity_mean", "sd": "perplexity_sd",
    "tokens right": "token_accuracy_mean", "sd of that": "token_accuracy_sd",
    "last words right": "last_word_accuracy_mean", "sd of these": "last_word_accuracy_sd",
    "of the teacher's right tokens": "retention_mean", "of its last words": "last_word_retention_mean",
    "other texts' perplexity": "others_mean", "its deviation": "others_sd",
}  # fmt: skip
RUNS = {
    "student": "student", "teacher": "teacher", "method": "method", "settings": "settings", "seed": "seed",
    "before": "accuracy_before", "after": "accuracy_after", "delta": "transfer_delta", "gain": "knowledge_gain",
    "loss": "knowledge_loss", "p": "mcnemar_p", "held-out delta": "heldout_transfer_delta",
    "chosen epoch": "chosen_epoch", "its delta": "chosen_transfer_delta", "mse before": "mse_before",
    "mse after": "mse_after",
    **{f"{text} {number}".strip(): f"networks_student{number}_{key}_after" for number in NUMBERS
       for text, key in (("neighbours", "neighbours"), ("linear", "probe"))},
    "agreement": "agreement_after", "rmse before": "rmse_before", "rmse after": "rmse_after",
    "perplexity before": "perplexity_before", "perplexity after": "perplexity_after",
    "last words right": "last_word_accuracy_after", "seconds": "seconds",
}  # fmt: skip
"""Columns of the two tables for people: heading and key."""


_MEASURED = ("transfer_delta", "mse_after", "rmse_after", "perplexity_after", "neighbours_after")
"""Of which every finished run has one."""


def check_installed() -> None:
    """Raise `UserError` unless tables can be written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise missing_extra("studies need", "study") from None


def row(identity: Row, numbers: Mapping[str, Any]) -> Row:
    """A run's row: what it was, and every number of its result.json under one flat name.

    Args:
        identity: student, teacher, method (of the study), settings, seed, data and folder.
        numbers: the content of result.json; `heldout: {transfer_delta: 1}` becomes `heldout_transfer_delta`.
    """
    left_out = {*identity, "environment", "taught_by"}
    kept = {key: value for key, value in numbers.items() if key not in left_out and value is not None}
    return {**identity, **_flat(kept)}


def summarise(rows: Iterable[Row]) -> list[Row]:
    """The transfer measures of each method, with each combination of settings, on each of `PARTS`.

    The success rate of a student is the percentage of its teachers with a transfer delta above zero (arXiv 2310.17653); here
    as the median over students and pooled over all pairs of student and teacher. A pair's delta, gain and loss are the means
    over its seeds; significance is counted for each run. Of runs of regression there are the median and the range of the mean
    squared error, of runs on ratings the mean of the root mean squared error and its standard error, of runs on text means and
    standard deviations of perplexities and accuracies.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for one in rows:
        for part, prefix in PARTS.items():
            if any(one.get(f"{prefix}{key}") is not None for key in _MEASURED):
                # Of features each choice of networks stands by itself: it is no seed of another.
                networks = one["student"] if "neighbours_after" in one else None
                groups.setdefault((part, one["method"], one["settings"], networks), []).append(one)
    order = list(PARTS)
    return [
        {
            "part": part,
            "method": method,
            "settings": settings,
            **({"networks": networks} if networks else {}),
            **_measures(group, PARTS[part]),
        }
        for (part, method, settings, networks), group in sorted(
            groups.items(), key=lambda item: order.index(item[0][0])
        )
    ]


def _measures(rows: list[Row], prefix: str) -> Row:
    if f"{prefix}mse_after" in rows[0]:
        errors = [one[prefix + "mse_after"] for one in rows]
        return {"runs": len(rows), "mse_median": median(errors), "mse_min": min(errors), "mse_max": max(errors)}
    if f"{prefix}rmse_after" in rows[0]:
        errors = [one[prefix + "rmse_after"] for one in rows]
        error = stdev(errors) / len(errors) ** 0.5 if len(errors) > 1 else None
        return {"runs": len(rows), "rmse_mean": fmean(errors), "rmse_se": error}
    if f"{prefix}neighbours_after" in rows[0]:
        return _of_features(rows, prefix)
    if f"{prefix}perplexity_after" in rows[0]:
        return _of_text(rows, prefix)
    pairs: dict[tuple[Any, Any], list[Row]] = {}
    for one in rows:
        pairs.setdefault((one["student"], one["teacher"]), []).append(one)

    def of_pairs(key: str) -> list[float]:
        means = (fmean(one[prefix + key] for one in seeds) for seeds in pairs.values())
        return [round(mean, 9) for mean in means]  # seeds that cancel out are no success

    deltas = of_pairs("transfer_delta")
    by_student: dict[Any, list[bool]] = {}
    for (student, _), delta in zip(pairs, deltas, strict=True):
        by_student.setdefault(student, []).append(delta > 0)
    repeated = [[one[prefix + "transfer_delta"] for one in seeds] for seeds in pairs.values() if len(seeds) > 1]
    significant = [one[prefix + "transfer_delta"] for one in rows if one[prefix + "mcnemar_p"] < 0.05]
    return {
        "students": len(by_student),
        "pairs": len(pairs),
        "runs": len(rows),
        "success_rate_median": median(100 * fmean(won) for won in by_student.values()),
        "success_rate_pooled": 100 * fmean(delta > 0 for delta in deltas),
        "delta_mean": fmean(deltas),
        "delta_median": median(deltas),
        "delta_min": min(deltas),
        "delta_max": max(deltas),
        "delta_seed_sd": fmean(stdev(seeds) ** 2 for seeds in repeated) ** 0.5 if repeated else None,
        "significantly_better": 100 * sum(delta > 0 for delta in significant) / len(rows),
        "significantly_worse": 100 * sum(delta < 0 for delta in significant) / len(rows),
        "gain_mean": fmean(of_pairs("knowledge_gain")),
        "loss_mean": fmean(of_pairs("knowledge_loss")),
        "accuracy_mean": fmean(one[prefix + "accuracy_after"] for one in rows),
        **_corrupted(rows, prefix),
    }


def _of_text(rows: list[Row], prefix: str) -> Row:
    """Means and standard deviations over runs of a language model's scores; those of other texts are means over them."""
    found: Row = {"runs": len(rows)}
    for name, key in (
        ("perplexity", "perplexity_after"),
        ("token_accuracy", "token_accuracy_after"),
        ("last_word_accuracy", "last_word_accuracy_after"),
        ("retention", "retention_of_teacher1_token_accuracy"),
        ("last_word_retention", "retention_of_teacher1_last_word_accuracy"),
    ):
        found |= _spread(name, [one[prefix + key] for one in rows if prefix + key in one])
    if not prefix:
        others = [[value for key, value in one.items() if _is_other(key)] for one in rows]
        found |= _spread("others", [fmean(values) for values in others if values])
    return found


def _of_features(rows: list[Row], prefix: str) -> Row:
    """Means and standard deviations over runs of what is read from features, of each network."""
    found: Row = {"runs": len(rows)}
    for role in (f"student{number}" for number in NUMBERS):
        for key in ("neighbours", "probe"):
            values = [one[name] for one in rows if (name := f"{prefix}networks_{role}_{key}_after") in one]
            found |= _spread(f"{role}_{key}", values)
    agreement = f"{prefix}agreement_after"
    return found | _spread("agreement", [one[agreement] for one in rows if agreement in one])


def _is_other(key: str) -> bool:
    return (
        key.startswith("others_") and key.endswith("_perplexity_after") and not key.endswith("_word_perplexity_after")
    )


def _spread(name: str, values: list[float]) -> Row:
    if not values:
        return {}
    return {f"{name}_mean": fmean(values), f"{name}_sd": stdev(values) if len(values) > 1 else None}


def _corrupted(rows: list[Row], prefix: str) -> Row:
    """Mean and standard deviation over runs of the accuracy on corrupted images, where it was measured."""
    return _spread("corrupted", [one[f"{prefix}corrupted_after"] for one in rows if f"{prefix}corrupted_after" in one])


def write(folder: Path, rows: Sequence[Row], about: Mapping[str, str]) -> None:
    """Write table.parquet, which has every column, and table.md, for people, each atomically.

    Args:
        folder: where to.
        rows: as `row` gives them, in order.
        about: what table.md says above the tables, by heading.

    Raises:
        UserError: when a file cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    columns = dict.fromkeys(key for one in rows for key in one)
    buffer = io.BytesIO()
    made = pyarrow.table({key: [one.get(key) for one in rows] for key in columns})
    pyarrow.parquet.write_table(made.replace_schema_metadata({"about": json.dumps(about)}), buffer)
    write_atomically(folder / "table.parquet", buffer.getbuffer())
    text = [f"# Study {folder.name}\n", *(f"- {heading}: {value}" for heading, value in about.items())]
    summary = summarise(rows)
    if summary:
        text += ["\n## Summary\n", _markdown(summary, SUMMARY)]
        if any("delta_mean" in one for one in summary):
            text += ["\n" + LEGEND]
    if rows:
        text += ["\n## Runs\n", _markdown(rows, RUNS)]
        text += ["\nMeasured on the test part, accuracies in percent of samples; table.parquet has every column."]
    write_atomically(folder / "table.md", ("\n".join(text) + "\n").encode())


def read(folder: Path) -> tuple[list[Row], dict[str, str]]:
    """The rows of a study's table.parquet, and what stands above its tables.

    Raises:
        UserError: where tables cannot be read.
    """
    check_installed()
    import pyarrow.parquet

    made = pyarrow.parquet.read_table(folder / "table.parquet")
    rows = [{key: value for key, value in one.items() if value is not None} for one in made.to_pylist()]
    identity = ("student", "teacher", "method", "settings", "seed", "data", "folder")
    about: dict[str, str] = json.loads((made.schema.metadata or {}).get(b"about", b"{}"))
    return [{**dict.fromkeys(identity), **one} for one in rows], about


def cells(rows: Sequence[Row], columns: Mapping[str, str]) -> tuple[list[str], list[list[str]], list[bool]]:
    """Of the columns (heading to key) that any row fills: the headings, each row's texts, and which columns hold numbers."""
    filled = {heading: key for heading, key in columns.items() if any(one.get(key) not in (None, "") for one in rows)}
    numeric = [any(isinstance(one.get(key), int | float) for one in rows) for key in filled.values()]
    return list(filled), [[shown(key, one.get(key)) for key in filled.values()] for one in rows], numeric


def _flat(value: Any, name: str = "") -> Row:
    if isinstance(value, Mapping):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list):
        items = enumerate(value, start=1)
    else:
        return {name: value}
    return {key: one for inner, part in items for key, one in _flat(part, f"{name}_{inner}" if name else inner).items()}


def _markdown(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    headings, texts, numeric = cells(rows, columns)
    lines = [headings, ["---:" if number else "---" for number in numeric], *texts]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def joined(settings: Mapping[str, str]) -> str:
    """Settings as a row holds them: `method.kl_weight=0.4, seed=1`."""
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def settings(one: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a row, by recipe key: what `joined` has joined."""
    pairs = (pair.split("=", 1) for pair in re.split(r", (?=[\w.]+=)", one["settings"] or "") if pair)
    return dict(pairs)


def named(method: str, settings: Mapping[str, str]) -> str:
    """A method with its settings, by the last part of their keys, or the last two: "distillation, kl_weight 0.4"."""
    last = [key.split(".")[-1] for key in settings]
    short = [
        name if last.count(name) == 1 else ".".join(key.split(".")[-2:])
        for key, name in zip(settings, last, strict=True)
    ]
    return ", ".join([method, *(f"{name} {value}" for name, value in zip(short, settings.values(), strict=True))])


def shown(key: str, value: Any) -> str:
    """A column's value as people read it; nothing for None."""
    if not isinstance(value, float):
        return "" if value is None else str(value)
    if key.startswith("rmse"):
        return f"{value:.4f}"
    if key == "mcnemar_p" or key.startswith("mse"):
        return f"{value:.2g}"
    signed = key.endswith("transfer_delta") or (key.startswith("delta_") and key != "delta_seed_sd")
    return f"{value:+.2f}" if signed else f"{value:.2f}"
