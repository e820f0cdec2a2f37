"""Who knows what: models side by side on the same samples, before any transfer (arXiv 2310.17653, section 3)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from osmose import answers as asked
from osmose import recipe as recipes
from osmose.candidates import Model, expanded
from osmose.data import load_data
from osmose.errors import UserError, check, unknown
from osmose.evaluate import accuracy, negative_flips, positive_flips
from osmose.evaluate.class_names import similarities_of
from osmose.evaluate.complementary import entropy, flips_by_class, relative_similarity, top_classes
from osmose.random import generator
from osmose.report import write_comparison

SHARES = (2, 5, 10, 20, 50)
"""Percent of the flips that a set of top classes holds, as in the paper."""


def compare(
    models: Sequence[Model],
    *,
    data: str | Mapping[str, Any] | None = "fashion-mnist-mini",
    part: Literal["heldout", "test", "train"] = "heldout",
    features: bool = False,
    student: str | None = None,
    classes: Iterable[str] = (),
    encoder: str | None = None,
    pairs: int | None = None,
    seed: int = 0,
    output: str | Path | None = None,
    keep: str | Path | None = None,
) -> dict[str, Any]:
    """What each model knows that another does not, from one pass a model.

    Args:
        models: names ("zoo:*" for the whole zoo), modules, and "logits:FILE" for logits from elsewhere (parquet, a row a sample:
            a column "logits" of lists, and "label").
        data: a data set with classes, by name or path, or the section `data` of a recipe; None when all are files with labels.
        part: the samples; a teacher should be chosen on "heldout".
        features: compare what the nearest training samples in their features answer; of networks without a head always.
        student: one of the models: the others are ranked as its teachers.
        classes: rank by what they know of these classes alone.
        encoder: a sentence encoder, a folder or a name on the hub, that tells how alike the classes' names are.
        pairs: so many random ordered pairs; None takes all.
        seed: of the choice of pairs.
        output: a folder for what is returned and its page, comparison.json and report.html.
        keep: a folder for every model's logits, as parquet.

    Returns:
        {"data", "part", "samples", "classes", "uniform_entropy": log(number of classes), "models": of each "model", "accuracy",
        "by" what it answers (its classifier, neighbours in its features, a file), "parameters"; "pairs": of each ordered pair
        "teacher", "student", "accuracy_difference" (teacher's less student's); "positive_flips", "negative_flips" and "agreement"
        (the same answer) in percent of the samples; "by_class", the positive flips of each class in the same unit; "entropy" of
        their distribution in nats; "top", for each share of `SHARES` the "classes" that hold it and their relative "similarity";
        "student", "chosen_classes" as given; "ranking": teachers of `student`, best first}.

    Raises:
        UserError: for models that do not fit the data or each other, unknown classes or student, or a missing extra.
    """
    check(pairs is None or pairs >= 1, "pairs", pairs, "at least 1")
    if pairs is not None and student is not None:
        raise UserError("a ranking needs all of the student's pairs: leave out --pairs, or --student")
    settings = None if data is None else recipes.image_settings(data)
    loaded = load_data(**vars(settings)) if settings else None
    wanted = [name.strip() for name in classes]
    if loaded and loaded.classes:
        _check_classes(wanted, loaded.classes)
    shown = {str(model): _shown(model) for model in expanded(models)}
    if student is not None and student not in (*shown, *shown.values()):
        raise unknown("student", student, tuple(shown.values()))
    found = asked.ask(models, loaded, part, features=features)
    student = student and found.given.get(student, student)
    if len(found.logits) < 2:
        raise UserError("one model has nobody to be compared with: give two or more")
    _check_classes(wanted, found.classes)
    alike = similarities_of(found.classes, encoder) if encoder else None
    if keep is not None:
        asked.write(found, Path(keep))

    answers = {name: logits.argmax(-1) for name, logits in found.logits.items()}
    ordered = list(permutations(answers, 2))
    if pairs is not None and pairs < len(ordered):
        chosen = torch.randperm(len(ordered), generator=generator(seed, "compare/pairs"))[:pairs]
        ordered = [ordered[place] for place in sorted(chosen.tolist())]
    rows = [_pair(teacher, one, answers, found, alike) for teacher, one in ordered]
    numbers = {
        "data": settings.name if settings else None,
        "part": part,
        "samples": len(found.labels),
        "classes": list(found.classes),
        "uniform_entropy": math.log(len(found.classes)),
        "models": [
            {"model": name, "accuracy": accuracy(answer == found.labels), **found.about[name]}
            for name, answer in answers.items()
        ],
        "pairs": rows,
        "student": student,
        "chosen_classes": wanted,
        "ranking": _ranking(student, wanted, rows) if student else None,
    }
    if output is not None:
        write_comparison(numbers, Path(output))
    return numbers


def _shown(model: Model) -> str:
    """What a model is called in tables."""
    name = str(model)
    return Path(name.removeprefix(asked.LOGITS)).stem if name.startswith(asked.LOGITS) else name


def _check_classes(wanted: Sequence[str], classes: Sequence[str]) -> None:
    for name in wanted:
        if name not in classes:
            raise unknown("class", name, classes)


def _pair(
    teacher: str, student: str, answers: Mapping[str, Tensor], found: asked.Answers, alike: Tensor | None
) -> dict[str, Any]:
    labels = found.labels
    knows, learns = (answers[name] == labels for name in (teacher, student))
    counts = flips_by_class(learns, knows, labels, len(found.classes))
    top = []
    for share in SHARES:
        chosen = top_classes(counts, share)
        similarity = None if alike is None else relative_similarity(chosen, alike)
        top.append({"share": share, "classes": [found.classes[one] for one in chosen], "similarity": similarity})
    return {
        "teacher": teacher,
        "student": student,
        "accuracy_difference": accuracy(knows) - accuracy(learns),
        "positive_flips": positive_flips(learns, knows),
        "negative_flips": negative_flips(learns, knows),
        "agreement": accuracy(answers[teacher] == answers[student]),
        "by_class": {
            name: 100.0 * count / len(labels) for name, count in zip(found.classes, counts.tolist(), strict=True)
        },
        "entropy": entropy(counts),
        "top": top,
    }


def _ranking(student: str, classes: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The student's teachers by their positive flips, in the classes if there are any; then by fewer negative flips."""
    teachers = [
        {
            "teacher": row["teacher"],
            "knows": sum(row["by_class"][name] for name in classes) if classes else row["positive_flips"],
            "positive_flips": row["positive_flips"],
            "negative_flips": row["negative_flips"],
            "accuracy_difference": row["accuracy_difference"],
        }
        for row in rows
        if row["student"] == student
    ]
    return sorted(teachers, key=lambda row: (-row["knows"], row["negative_flips"]))
