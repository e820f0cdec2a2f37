"""What a finished run on images measured: the only place that reads the test part of its data."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from osmose.data.corruptions import Corruption, parse
from osmose.data.dataset import Dataset
from osmose.data.domains import corrupted
from osmose.data.split import Split
from osmose.evaluate import outcomes, predict
from osmose.evaluate.complementary import flips_by_class, top_classes, transfer_rate
from osmose.evaluate.robustness import domain_accuracy
from osmose.evaluate.transfer import transfer_numbers
from osmose.models.model import Predictor
from osmose.recipe import Recipe
from osmose.tasks.task import Measured, result_numbers

_SHARES = (2, 5, 20, 50, 100)
"""Percent of the teacher's positive flips that a set of top classes holds (arXiv 2310.17653, figure 5)."""
_PICTURES = 12
"""Test images of each kind of flip that are kept."""


def measure(
    recipe: Recipe,
    data: Dataset,
    initial: Predictor,
    teachers: Mapping[str, Predictor],
    students: Mapping[str, Predictor],
    device: torch.device,
) -> Measured:
    """Ask everyone about the test and the held-out part.

    Args:
        recipe: the run's recipe.
        data: the data.
        initial: the student before the run.
        teachers: the teachers that know the data's classes, by role.
        students: "after", the student of the last epoch, whose numbers are the top level; and "chosen", that of the epoch with
            the best held-out score.
        device: where the networks run.
    """
    models: dict[str, Predictor] = {"before": initial, **teachers, **students}
    parts = {"test": data.test(), **({"heldout": data.heldout} if data.heldout else {})}
    measured: dict[str, dict[str, Any]] = {}
    answers: dict[str, Tensor] = {}
    flipped: dict[str, Tensor] = {}
    for part, split in parts.items():
        said = {role: predict(model.to(device), split) for role, model in models.items()}
        found = {role: outcomes(models[role], logits, split) for role, logits in said.items()}
        measured[part] = _numbers(found, list(students), list(teachers))
        assert split.labels is not None
        if not found["before"].is_floating_point():
            for role in students if teachers else ():
                measured[part][role]["transfer_rate"] = _rates(found, role, split.labels, said["before"].shape[1])
            answers |= {f"{part}/{role}": logits.argmax(-1).int() for role, logits in said.items()}
            answers |= {f"{part}/labels": split.labels.int(), f"{part}/numbers": split.index}
            if part == "test":
                flipped = _flipped(split, found["before"], found["after"])
    test, heldout = measured["test"], measured.get("heldout", {})
    if recipe.corruptions:
        test["after"]["corrupted"] = _corrupted(parse(recipe.corruptions), parts["test"], models, recipe.workers)
    unit = "mean squared error" if "mse_after" in test["after"] else "percent of samples"
    return Measured(result_numbers(recipe, unit, test, heldout), {"answers": answers, "flipped": flipped})


def _numbers(found: dict[str, Tensor], students: list[str], teachers: list[str]) -> dict[str, dict[str, Any]]:
    """The transfer's numbers on one part, for each of the students, from everyone's outcomes."""
    if found["before"].is_floating_point():
        error = {role: errors.mean().item() for role, errors in found.items()}
        return {role: {"mse_before": error["before"], "mse_after": error[role]} for role in students}
    return {role: transfer_numbers(found["before"], found[role], [found[t] for t in teachers]) for role in students}


def _rates(found: dict[str, Tensor], student: str, labels: Tensor, classes: int) -> dict[str, float | None]:
    """How much of the first teacher's positive flips arrived, in the classes with the top shares of them."""
    before, teacher = found["before"], found["teacher1"]
    counts = flips_by_class(before, teacher, labels, classes)
    return {
        str(share): transfer_rate(before, found[student], teacher, labels, top_classes(counts, share))
        for share in _SHARES
    }


def _flipped(split: Split, before: Tensor, after: Tensor) -> dict[str, Tensor]:
    """Some images that are newly right and newly wrong, spread evenly over those that are."""
    flipped: dict[str, Tensor] = {}
    for name, which in (("gained", after & ~before), ("lost", before & ~after)):
        rows = which.nonzero().flatten()
        rows = rows[torch.linspace(0, len(rows) - 1, min(_PICTURES, len(rows))).long()] if len(rows) else rows
        images = split.inputs.read(rows)
        if images.dtype == torch.uint8:
            flipped |= {name: images, f"{name}/rows": rows}
    return flipped


def _corrupted(
    corruptions: list[Corruption], test: Split, models: Mapping[str, Predictor], workers: int
) -> dict[str, Any]:
    """The accuracies on corrupted test images: means, and for each corruption and severity; by role."""
    by_corruption = {
        f"{one.name}:{one.severity}": domain_accuracy(models, corrupted(test, one), workers=workers)
        for one in corruptions
    }
    return {
        **{role: fmean(found[role] for found in by_corruption.values()) for role in models},
        "by_corruption": by_corruption,
    }
