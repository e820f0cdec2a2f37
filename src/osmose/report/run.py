"""The report of a run, from what its folder has."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from osmose.errors import UserError
from osmose.files import write_atomically
from osmose.report.backbones import NOTHING_READ, feature_sections, feature_tiles
from osmose.report.charts import bars, curves, embed, parts, picture
from osmose.report.page import Figure, Sample, Section, Tile, page
from osmose.report.ratings import rating_scores, rating_tiles
from osmose.report.text import text_passages, text_scores, text_tiles
from osmose.weights import read_about

_MANY = 30
"""Classes that are drawn; of more those that changed most."""
_FIGURES = {
    "augmented.png": "Training images, and what the augmentors found along the run make of them",
    "augmentor.svg": "What the augmentor learned: the median and the range of most draws",
    "phases.svg": "Losses of student and augmentor, and whose turn it was",
    "reconstructed.png": "Images and their reconstructions, with more and more noise",
}
"""Pictures that methods leave in a run's folder."""


def report_run(folder: Path) -> Path:
    """Write report.html into the folder of a finished run.

    Raises:
        UserError: when the folder has no finished run, or cannot be written.
    """
    if not (folder / "result.json").exists():
        raise UserError(f"{folder} has no finished run: give a run's folder, with a result.json")
    numbers = json.loads((folder / "result.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    answers = _tensors(folder / "answers.safetensors")
    names = read_about(folder / "student.safetensors").get("classes") if answers else None
    sections = [
        *(text_scores(numbers) if "perplexity_after" in numbers else []),
        *(rating_scores(numbers) if "rmse_after" in numbers else []),
        *feature_sections(numbers, _tensors(folder / "map.safetensors"), numbers.get("classes")),
        *_learning(lines, taking_turns=(folder / "phases.svg").exists()),
        *(_classes(answers, names) if answers else []),
        *(_samples(answers, _tensors(folder / "flipped.safetensors"), names) if answers else []),
        *text_passages(folder),
        *_who_taught(numbers),
        *_pictures(folder),
        *_robustness(numbers),
        _cost(numbers),
        _recipe(folder, numbers),
    ]
    path = folder / "report.html"
    title = f"{numbers['student']} taught by {numbers.get('taught_by', numbers['method'])}"
    write_atomically(path, page(title, _subtitle(numbers), _tiles(numbers), sections).encode())
    return path


def _subtitle(numbers: Mapping[str, Any]) -> str:
    text = f"{numbers['data']}, method {numbers['method']}, seed {numbers['seed']}: one run"
    if "documents" in numbers:
        text += f"; numbers are of {numbers['tokens']} tokens of {numbers['documents']} test documents, after the last epoch"
    if "ratings" in numbers:
        text += f"; numbers are of {numbers['ratings']} test ratings, after the last epoch"
    if numbers.get("networks") == {}:
        text += f"; {NOTHING_READ}"
    elif "samples" in numbers:
        text += f"; numbers are of {numbers['samples']} test samples, after the last epoch"
    return text


def _tiles(numbers: Mapping[str, Any]) -> list[Tile]:
    if "perplexity_after" in numbers:
        return text_tiles(numbers)
    if "rmse_after" in numbers:
        return rating_tiles(numbers)
    if "networks" in numbers:
        return feature_tiles(numbers)
    if "accuracy_after" not in numbers:
        return [
            Tile("mean squared error before", f"{numbers['mse_before']:.4g}"),
            Tile("after", f"{numbers['mse_after']:.4g}"),
        ]
    delta = numbers["transfer_delta"]
    tiles = [
        Tile("accuracy before", f"{numbers['accuracy_before']:.2f} %"),
        Tile("accuracy after", f"{numbers['accuracy_after']:.2f} %"),
        Tile("points", f"{delta:+.2f}", "gained" if delta > 0 else "lost" if delta < 0 else ""),
        Tile("newly right", f"{numbers['knowledge_gain']:.2f} %", "gained"),
        Tile("newly wrong", f"{numbers['knowledge_loss']:.2f} %", "lost"),
        Tile("McNemar's p", f"{numbers['mcnemar_p']:.2g}"),
    ]
    if chosen := numbers.get("chosen"):
        tiles.append(Tile(f"epoch {chosen['epoch']}, the best held-out one", f"{chosen['accuracy_after']:.2f} %"))
    return tiles


def _learning(lines: list[dict[str, Any]], *, taking_turns: bool) -> list[Section]:
    figures = []
    evaluated = [line for line in lines if "heldout_accuracy" in line]
    if len(evaluated) > 1:
        points = [(line["epoch"], line["heldout_accuracy"]) for line in evaluated]
        figures.append(Figure(curves({"accuracy": points}, x="epoch", y="held-out accuracy, %")))
    neighbours = [line for line in lines if "heldout_neighbours" in line]
    if len(neighbours) > 1:
        roles = [key for key in neighbours[0] if key.startswith("heldout_student")] or ["heldout_neighbours"]
        votes = {key.removeprefix("heldout_"): [(line["epoch"], line[key]) for line in neighbours] for key in roles}
        figures.append(Figure(curves(votes, x="epoch", y="held-out accuracy of neighbours, %")))
    errors = [(line["epoch"], line["heldout_rmse"]) for line in lines if "heldout_rmse" in line]
    if len(errors) > 1:
        figures.append(Figure(curves({"error": errors}, x="epoch", y="held-out RMSE, stars")))
    perplexities = [(line["epoch"], line["heldout_perplexity"]) for line in lines if "heldout_perplexity" in line]
    if len(perplexities) > 1:
        figures.append(Figure(curves({"perplexity": perplexities}, x="epoch", y="held-out perplexity")))
    if len(evaluated) > 1 and "heldout_knowledge_gain" in evaluated[0]:
        since = {
            name: [(line["epoch"], line[f"heldout_knowledge_{key}"]) for line in evaluated]
            for name, key in (("gained", "gain"), ("lost", "loss"))
        }
        figures.append(Figure(curves(since, x="epoch", y="held-out, % since the start")))
    steps = [line for line in lines if "loss" in line]
    if len(steps) > 1:
        figures.append(Figure(curves(_over_steps(steps, {"loss"}), x="optimiser step", y="training loss")))
    single = _over_steps(steps, {key for line in steps for key in line if "/" not in key} - {"step", "epoch", "loss"})
    if len(single) > 1 and not taking_turns:  # those who take turns have a figure of their own
        figures.append(Figure(curves(single, x="optimiser step", y="each loss, without its weight")))
    twins = _over_steps(steps, {key for line in steps for key in line if key.startswith("twin/")})
    if twins and len(steps) > 1:
        figures.append(Figure(curves(twins, x="optimiser step", y="entropy of twins' answers; what they tell, nats")))
    return [Section("How it learned", figures=figures)] if figures else []


def _over_steps(steps: list[dict[str, Any]], keys: set[str]) -> dict[str, list[tuple[float, float]]]:
    """By key how it changed from step to step."""
    return {key: [(line["step"], line[key]) for line in steps if key in line] for key in sorted(keys)}


def _classes(answers: Mapping[str, Tensor], names: list[str] | None) -> list[Section]:
    labels = answers["test/labels"]
    before, after = (answers[f"test/{role}"] == labels for role in ("before", "after"))
    count = len(names) if names else int(labels.max()) + 1
    gained, lost = (labels[which].bincount(minlength=count) for which in (after & ~before, before & ~after))
    order = (gained + lost).argsort(descending=True, stable=True)[:_MANY] if count > _MANY else torch.arange(count)
    chart = bars(
        [_name(int(one), names) for one in order], gained[order].tolist(), lost[order].tolist(),
        x="test samples newly right (right) and newly wrong (left)",
    )  # fmt: skip
    text = f"The {_MANY} of {count} classes that changed most." if count > _MANY else ""
    return [Section("Gained and lost, class by class", text, [Figure(chart)])]


def _samples(answers: Mapping[str, Tensor], flipped: Mapping[str, Tensor], names: list[str] | None) -> list[Section]:
    sections = []
    for key, title in (("gained", "Newly right"), ("lost", "Newly wrong")):
        if key not in flipped or not len(flipped[key]):
            continue
        samples = []
        for image, row in zip(flipped[key], flipped[f"{key}/rows"].tolist(), strict=True):
            label, before, after = (
                _name(int(answers[f"test/{what}"][row]), names) for what in ("labels", "before", "after")
            )
            samples.append(Sample(picture(image), label, before, after))
        text = "Some test samples: their class, and the student's answer before and after."
        sections.append(Section(title, text, samples=samples))
    return sections


def _who_taught(numbers: Mapping[str, Any]) -> list[Section]:
    shares = {name: share for name, share in (numbers.get("share") or {}).items() if share > 0}
    if len(shares) < 2:
        return []
    return [
        Section(
            "Who taught what",
            "Share of the training samples, of text of its tokens, over the run.",
            [Figure(parts(shares))],
        )
    ]


def _pictures(folder: Path) -> list[Section]:
    kinds = {".png": "image/png", ".svg": "image/svg+xml"}
    figures = [
        Figure(source=embed((folder / name).read_bytes(), kinds[Path(name).suffix]), caption=caption)
        for name, caption in _FIGURES.items()
        if (folder / name).exists()
    ]
    return [Section("What was learned beside the student", figures=figures)] if figures else []


def _robustness(numbers: Mapping[str, Any]) -> list[Section]:
    found = numbers.get("corrupted")
    if not found:
        return []
    roles = [role for role in found if role != "by_corruption"]
    rows = [[name, *(f"{one[role]:.2f}" for role in roles)] for name, one in found["by_corruption"].items()]
    mean = ["mean", *(f"{found[role]:.2f}" for role in roles)]
    return [Section("On corrupted images", "Accuracy in percent.", columns=["corruption", *roles], rows=[*rows, mean])]


def _cost(numbers: Mapping[str, Any]) -> Section:
    costs, tokens = numbers.get("cost", {}), "tokens_per_second"
    rows = [
        [
            role, f"{cost['parameters']:,}", f"{cost['weights_mib']:.3g}", f"{cost['latency_ms']:.3g}",
            f"{cost['peak_mib']:.3g}", *([f"{cost[tokens]:,.0f}"] if tokens in cost else []),
        ]
        for role, cost in costs.items()
    ]  # fmt: skip
    text = (
        f"Training took {numbers['seconds']:,.0f} seconds. One sample at a time; memory is what intermediate results take "
        "at most, without weights."
    )
    columns = ["", "parameters", "weights, MiB", "ms", "memory, MiB"]
    if any(tokens in cost for cost in costs.values()):
        columns.append("tokens a second")
    return Section("Cost", text, columns=columns, rows=rows)


def _recipe(folder: Path, numbers: Mapping[str, Any]) -> Section:
    environment = ", ".join(f"{name} {value}" for name, value in numbers["environment"].items())
    return Section("Recipe and machine", environment, code=(folder / "recipe.yaml").read_text(), summary="recipe.yaml")


def _tensors(path: Path) -> dict[str, Tensor]:
    return load_file(path) if path.exists() else {}


def _name(number: int, names: list[str] | None) -> str:
    return names[number] if names else str(number)
