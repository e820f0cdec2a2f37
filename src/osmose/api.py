"""The Python functions behind `osmose.transfer`, `osmose.run` and `osmose.study`."""

import copy
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import track
from torch import nn

from osmose import execution, grid, user_code
from osmose import recipe as recipes
from osmose.candidates import Model, best_device, labelled_part, load_candidate, load_candidates
from osmose.data import load_data
from osmose.data.corpus import load_passages
from osmose.data.corruptions import check_available, parse
from osmose.data.domains import Domain, corrupted, open_domains
from osmose.data.images import Decoding
from osmose.data.ratings import load_ratings
from osmose.data.split import stratified
from osmose.errors import UserError, check
from osmose.evaluate import accuracy, outcomes, predict
from osmose.evaluate.harness import SHARES, find_tasks, score_tasks
from osmose.evaluate.language import score_tokens, text_numbers
from osmose.evaluate.ratings import error_by_genre, root_mean_square
from osmose.evaluate.readings import BANK, check_features, read_features
from osmose.evaluate.robustness import domain_accuracy, gaps, summarise
from osmose.execution import Result, execute
from osmose.models.load_language import load_language
from osmose.pair_check import check_head
from osmose.random import generator
from osmose.stages import execute_stages
from osmose.tasks.ratings import check_answer, load_rating_network
from osmose.weights import digest

__all__ = ["Result", "evaluate", "evaluate_tasks", "robustness", "run", "study", "transfer"]

Numbers = dict[str, Any]


def transfer(
    *,
    student: Model | Sequence[Model] | None = None,
    teacher: Model | Sequence[Model] | None = None,
    data: str | None = None,
    output: str | Path | None = None,
    fresh: bool = False,
    quiet: bool = True,
    **settings: Any,
) -> Result:
    """Teach a student what a teacher knows and the student does not.

    Without arguments it runs the packaged recipe "default". On the embedded data set that recipe is what the arguments change;
    on other data the defaults are the papers'.

    Args:
        student: a model's name or a module, which is left as it is: the result holds a trained copy; several for methods that
            train networks side by side: mokd two, mutual two or more, dino any number.
        teacher: the same, or several.
        data: a data set by name or path.
        output: the run's folder; by default one under runs/ named after the recipe.
        fresh: discard what an earlier run left in the folder.
        quiet: show no progress.
        settings: any key of a recipe, for example `epochs=10`, `method={"name": "distill", "target": "partition"}`; in
            the section `method` a module may stand in a name's place, as for a generator.

    Returns:
        The student after the transfer, the numbers and the run's folder; of a finished run, without running it again.

    Raises:
        UserError: naming what is wrong and its cure.
    """
    modules: dict[str, nn.Module] = {}
    changes = dict(settings) if data is None else {**settings, "data": data}
    for role, given in (("student", student), ("teacher", teacher)):
        if given is None:
            continue
        several: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
        for number, one in enumerate(several, start=1):
            if not isinstance(one, str | nn.Module):
                raise UserError(
                    f"student and teachers are names or modules, {type(one).__name__} is neither: give an instance"
                )
            if isinstance(one, nn.Module):
                modules[role if role == "student" and len(several) == 1 else f"{role}{number}"] = one
        names = [one if isinstance(one, str) else _module_name(one) for one in several]
        changes[role] = names[0] if len(names) == 1 else names
    if "method" in changes:
        changes["method"] = _named(changes["method"], modules)
    recipe = recipes.resolve(recipes.merge(recipes.defaults(changes), changes))
    place = Path(output) if output else default_folder(recipe)
    return execute(recipe, place, fresh=fresh, quiet=quiet, modules=modules)


def _named(section: Any, modules: dict[str, nn.Module]) -> Any:
    """The section with a name in the place of each module; which is put into `modules` under that name."""
    if isinstance(section, nn.Module):
        name = _module_name(section)
        modules[name] = section
        return name
    if isinstance(section, Mapping):
        return {key: _named(value, modules) for key, value in section.items()}
    return [_named(value, modules) for value in section] if isinstance(section, list | tuple) else section


def run(
    recipe: str | Mapping[str, Any], *, output: str | Path | None = None, fresh: bool = False, quiet: bool = True
) -> Result:
    """Execute a recipe, stage by stage; finished stages are not run again.

    Args:
        recipe: a recipe file, the name of a packaged recipe, or plain values.
        output: the folder; stages run in folders of their names inside it.
        fresh: discard what an earlier run left there.
        quiet: show no progress.

    Returns:
        The last stage's result; with several stages its numbers are {"stages": {name: numbers}}.

    Raises:
        UserError: naming what is wrong and its cure; names and settings of every stage are checked before the first one runs.
    """
    values = recipes.load(recipe) if isinstance(recipe, str) else dict(recipe)
    stages = recipes.stages(values)
    if list(stages) == [""]:
        resolved = recipes.resolve(stages[""])
        return execute(resolved, Path(output) if output else default_folder(resolved), fresh=fresh, quiet=quiet)
    steps = {name: recipes.resolve(stage) for name, stage in stages.items()}
    place = Path(output) if output else default_folder(list(steps.values())[-1], json.dumps(values, sort_keys=True))
    return execute_stages(steps, place, fresh=fresh, quiet=quiet)


def study(
    study: str | Path | Mapping[str, Any], *, output: str | Path | None = None, jobs: int = 1, quiet: bool = True
) -> Numbers:
    """Run every combination of a study's lists, and tabulate them.

    Finished runs are not run again and interrupted ones go on. On SIGTERM and SIGINT the runs under way write a checkpoint.

    Args:
        study: a study file, the name of a packaged study, or plain values (keys: see `osmose.grid`).
        output: the study's folder; by default studies/NAME. It gets table.parquet, table.md, and the runs' folders in runs/.
        jobs: runs at a time, each in a process of its own with its share of the cores.
        quiet: show no progress.

    Returns:
        {"runs": how many, "finished": how many, "table": path of table.md, "summary": a row per method and part of the data}.

    Raises:
        UserError: naming what is wrong and its cure, before the first run where it can be known; or the runs that failed, after
            all others have finished.
    """
    values = dict(study) if isinstance(study, Mapping) else grid.load(str(study))
    place = Path(output) if output else Path("studies") / ("study" if isinstance(study, Mapping) else Path(study).stem)
    relative = os.path.relpath(place)
    file = os.path.relpath(study) if isinstance(study, str | Path) and Path(study).exists() else study
    source = f"{relative}/study.yaml" if isinstance(study, Mapping) else file
    own = [f"--import {os.path.relpath(path)}" for path in user_code.imported]
    command = " ".join(["osmose study", str(source), *own, "--output", relative])
    numbers = grid.run(values, place, command=command, jobs=jobs, quiet=quiet)
    failed = numbers.pop("failed")
    if failed:
        raise UserError(
            f"{len(failed)} of {numbers['runs']} runs failed ({', '.join(failed)}), the first with: "
            f"{next(iter(failed.values()))}; the same command goes on with them, their logs are in {place}/runs"
        )
    return numbers


def estimate(recipe: Mapping[str, Any], *, quiet: bool = True) -> Numbers:
    """Time, disk and memory that a recipe would take, from a few steps that are thrown away.

    Stages that use an earlier stage's product cannot be tried before it exists and are left out.

    Args:
        recipe: plain values.
        quiet: do not say what a run would note.

    Returns:
        {"stages": {name: numbers of `osmose.execution.estimate`}}.

    Raises:
        UserError: as `run`.
    """
    found = {}
    for name, stage in recipes.stages(recipe).items():
        resolved = recipes.resolve(stage)
        if not any(map(recipes.product, (*resolved.students, *resolved.roles.values()))):
            found[name] = execution.estimate(resolved, quiet=quiet)
    return {"stages": found}


def evaluate(
    model: Model,
    *,
    data: str | Mapping[str, Any] = "fashion-mnist-mini",
    part: Literal["test", "heldout", "train", "all"] = "test",
    features: bool = False,
    bank: int = BANK,
) -> Numbers:
    """Accuracy of a model on a part of a data set, in percent; where labels are numbers its mean squared error, of ratings
    ("ratings:DIR") the root of it, of all and of the items of each genre.

    Of a language model on text ("text:DIR") the numbers of `osmose.evaluate.language.text_numbers`.

    Args:
        model: a model's name or a module.
        data: a data set by name or path, or the section `data` of a recipe.
        part: which part; of text also "all" of it.
        features: ask what neighbours and a linear classifier read from a network's features; one without a head is always asked.
        bank: of how many training images these know the features and classes, evenly spread over all.

    Raises:
        UserError: when the model's classes are not the data's, or the data has no such part.
    """
    check(bank >= 2, "bank", bank, "at least 2")
    settings = recipes.data_settings(data)
    if features and not isinstance(settings, recipes.Data):
        raise UserError(f"features are read for classes of images, and {settings.name} has none: leave --features out")
    if isinstance(settings, recipes.Text):
        return _evaluate_text(model, settings, part)
    if part == "all":
        raise UserError(f"part 'all' is of text, and {settings.name} is none: use another --part")
    if isinstance(settings, recipes.RatingData):
        return _evaluate_ratings(model, settings, part)
    loaded = load_data(**vars(settings))
    split, network = labelled_part(loaded, part), load_candidate(model, loaded).to(best_device())
    numbers = {"model": network.name, "data": settings.name, "part": part, "samples": len(split)}
    if features or network.num_classes == 0:
        check_features(loaded, part)
        assert loaded.num_classes is not None
        asked = {"asked": split}
        readings = read_features(network, loaded.train, loaded.heldout, asked, classes=loaded.num_classes, bank=bank)
        return {**numbers, **readings["asked"].numbers()}
    check_head(network.name, network, loaded)
    found = outcomes(network, predict(network, split), split)
    return {**numbers, **({"mse": found.mean().item()} if found.is_floating_point() else {"accuracy": accuracy(found)})}


def _copied(model: Model) -> Model:
    """A name, or a copy of a module: the user's own stays what it is, and where."""
    return copy.deepcopy(model) if isinstance(model, nn.Module) else model


def _evaluate_ratings(model: Model, settings: recipes.RatingData, part: str) -> Numbers:
    loaded = load_ratings(**vars(settings))
    split = labelled_part(loaded, part)
    network = load_rating_network(_copied(model), loaded)
    check_answer(network, loaded)
    network.to(best_device())
    numbers = {"model": network.name, "data": settings.name, "part": part, "ratings": len(split)}
    errors = outcomes(network, predict(network, split), split)
    by_genre = error_by_genre({"rmse": errors}, split, loaded.features, loaded.genres)
    return {**numbers, "rmse": root_mean_square(errors), "by_genre": by_genre}


def _evaluate_text(model: Model, settings: recipes.Text, part: str) -> Numbers:
    language = load_language(_copied(model)).to(best_device())
    language.check_length(settings.length)
    passages = load_passages(**settings.scoring(), tokenizer=language.tokenizer, part=part)
    numbers = {"model": language.name, "data": settings.name, "part": part, "documents": passages.documents}
    return {**numbers, **text_numbers(score_tokens(language, passages), passages)}


def evaluate_tasks(
    model: Model,
    tasks: Sequence[str],
    *,
    teacher: Model | None = None,
    shots: int | None = None,
    limit: int | None = None,
) -> Numbers:
    """Scores of a language model on tasks of lm-evaluation-harness, with data from local files.

    Args:
        model: a language model's name, or one of transformers.
        tasks: "NAME:FILE" or "NAME:FOLDER"; see `osmose.evaluate.harness.find_tasks`.
        teacher: another model, whose scores stand beside.
        shots: examples before each question; None: as many as each task says.
        limit: so many questions a task.

    Returns:
        {"model", "teacher", "rows": for each task and metric "score", and with a teacher "teacher" and "retention", a share in
        percent of the teacher's}; accuracies in percent.

    Raises:
        UserError: for an unknown task, files that are missing or do not fit it, or a missing extra.
    """
    found = find_tasks(tasks, shots)
    given = {"score": model, **({} if teacher is None else {"teacher": teacher})}
    models = {who: load_language(_copied(one)) for who, one in given.items()}
    scores = {who: score_tasks(one.to(best_device()), found, shots=shots, limit=limit) for who, one in models.items()}
    rows = []
    for task, own in scores["score"].items():
        for metric, score in own.items():
            row: Numbers = {"task": task, "metric": metric, "score": score}
            if teacher is not None:
                row["teacher"] = beside = scores["teacher"][task].get(metric)
                row["retention"] = 100 * score / beside if beside and metric.partition(",")[0] in SHARES else None
            rows.append(row)
    return {"model": str(model), "teacher": None if teacher is None else str(teacher), "rows": rows}


def robustness(
    models: Sequence[Model],
    *,
    data: str | Mapping[str, Any] = "fashion-mnist-mini",
    corruptions: Iterable[str] = ("all",),
    in_domain: Iterable[str | Path] = (),
    out_of_domain: Iterable[str | Path] = (),
    part: Literal["test", "heldout"] = "test",
    samples: int | None = None,
    workers: int = 0,
    quiet: bool = True,
) -> Numbers:
    """Accuracy of models on corrupted test images and on folders of other images, side by side.

    Args:
        models: names or modules; every model sees the same images. The first is what the others' gaps are measured from.
        data: a data set with classes, by name or path, or the section `data` of a recipe.
        corruptions: "fog" at five severities, "fog:3" at one, "all" for the nineteen of ImageNet-C; "translate" is MNIST-C's.
        in_domain, out_of_domain: folders, in the layouts of `osmose.data.domains.open_domains`.
        part: whose images are corrupted; choose settings on "heldout".
        samples: so many of them, stratified; none takes all.
        workers: processes that read and corrupt images.
        quiet: show no progress.

    Returns:
        {"data", "part", "samples", "rows": for each model and each domain its accuracy in percent, "summary": for each model the
        numbers of `osmose.evaluate.robustness.summarise`, "gaps": how far each other model is behind the first one}.

    Raises:
        UserError: for an unknown corruption, a model that does not fit the data, a folder in no known layout, or a missing extra.
    """
    check(samples is None or samples >= 1, "samples", samples, "at least 1")
    check(workers >= 0, "workers", workers, "at least 0")
    wanted = parse(corruptions)
    check_available(wanted)
    settings = recipes.image_settings(data)
    loaded = load_data(**vars(settings))
    if loaded.num_classes is None:
        raise UserError(f"{settings.name} has numbers for labels: robustness compares classes; use osmose evaluate")
    networks = {name: one.to(best_device()) for name, one in load_candidates(models, loaded).items()}
    classes = loaded.classes or tuple(map(str, range(loaded.num_classes)))
    decoding = Decoding(settings.image_size, settings.crop_ratio)
    shape = (loaded.channels, *loaded.image_size)
    folders = {
        kind: [domain for folder in given for domain in open_domains(Path(folder), classes, decoding, shape)]
        for kind, given in (("in_domain", in_domain), ("out_of_domain", out_of_domain))
    }
    split = labelled_part(loaded, part)
    if samples is not None and split.labels is not None and samples < len(split):
        split = split.subset(stratified(split.labels, samples, generator(settings.split_seed, "robustness/samples")))
    domains = {
        "clean": [Domain("clean", split)],
        "corrupted": [corrupted(split, corruption) for corruption in wanted],
        **folders,
    }
    rows = []
    everything = [(kind, domain) for kind, found in domains.items() for domain in found]
    for kind, domain in track(everything, "domains", console=Console(file=sys.stderr), disable=quiet):
        for name, value in domain_accuracy(networks, domain, workers=workers).items():
            rows.append({"model": name, "kind": kind, "group": domain.group, "part": domain.part, "accuracy": value})
    summary = summarise(rows)
    return {
        "data": settings.name,
        "part": part,
        "samples": len(split),
        "rows": rows,
        "summary": summary,
        "gaps": gaps(summary),
    }


def default_folder(recipe: recipes.Recipe, whole: str | None = None) -> Path:
    """runs/STUDENT-METHOD-HASH: the same recipe always has the same folder.

    Args:
        recipe: what names the folder; of several stages the last.
        whole: what is hashed; by default the recipe itself.
    """
    digest = hashlib.sha256((whole or json.dumps(recipe.plain(), sort_keys=True)).encode()).hexdigest()[:8]
    student = "+".join(re.split(r"[:/$]", name)[-1] for name in recipe.students)
    return Path("runs") / f"{student}-{recipe.method['name']}-{digest}"


def _module_name(module: nn.Module) -> str:
    """Type and weights: other weights are another recipe."""
    return f"module:{type(module).__name__}-{digest(module)[:8]}"
