"""From a recipe to a finished run folder."""

import copy
import io
import resource
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning_fabric
import torch
from torch import nn

from osmose.data.batch import Batch
from osmose.data.corruptions import check_available, parse
from osmose.data.dataset import Dataset, Split, load_data
from osmose.data.feed import ViewFeed
from osmose.data.loader import Loader
from osmose.data.sources import find
from osmose.data.views import Views
from osmose.engine.chosen import Chosen
from osmose.engine.fabric import make_fabric, torch_settings
from osmose.engine.folder import RunFolder
from osmose.engine.loop import Engine
from osmose.engine.method import Method
from osmose.engine.progress import Progress
from osmose.errors import UserError
from osmose.evaluate import predict
from osmose.evaluate.cost import cost
from osmose.evaluate.heldout import HeldOut
from osmose.measure import environment, measure, shares
from osmose.methods import find_method
from osmose.models import load_model
from osmose.models.generator import Generator
from osmose.models.load_generator import load_generator
from osmose.models.network import Model, Network
from osmose.pair_check import check_pair
from osmose.processes import together
from osmose.random import stream
from osmose.recipe import Recipe, completed
from osmose.report import report_run
from osmose.signals import Frozen
from osmose.signals.kept import check_space
from osmose.weights import read_about, read_weights

_DRAWN = 8
"""Samples in a run's pictures."""

Modules = Mapping[str, nn.Module]
"""Networks given as modules, by role: "student", "teacher1", "teacher2", ...; and those of the method's
section by the names they have there."""


@dataclass(frozen=True)
class Result:
    """What a run hands back.

    Attributes:
        student: the student after the transfer, on the CPU, in evaluation mode: a `Network`, or what else the method trains.
        numbers: the content of result.json.
        folder: the run's folder.
    """

    student: Model
    numbers: dict[str, Any]
    folder: Path


@dataclass
class Cast:
    """Everything that takes part in a run.

    Attributes:
        data: the data.
        student: the model that trains.
        initial: its copy from before the run.
        teachers: the teachers, by role.
        notes: what people should know of how they were brought together.
        modules: those that the method's section names.
    """

    data: Dataset
    student: Model
    initial: Model
    teachers: dict[str, Network]
    notes: list[str]
    modules: Modules


def execute(
    recipe: Recipe,
    output: Path,
    *,
    fresh: bool = False,
    quiet: bool = False,
    modules: Modules | None = None,
    products: Mapping[str, Path] | None = None,
) -> Result:
    """Run a recipe in the folder `output`: begin, go on after an interruption, or hand back the finished result.

    Args:
        recipe: what to run.
        output: the run's folder.
        fresh: discard what is in the folder.
        quiet: show no progress.
        modules: networks that take the place of the recipe's names.
        products: the run folders whose students the names `$NAME` in the recipe stand for.

    Raises:
        UserError: for everything that a user can mend; before any long work starts, where it can be known.
        Interrupted: on SIGTERM or SIGINT, after a checkpoint was written.
    """
    fabric = make_fabric(recipe)
    recipe = replace(recipe, devices=fabric.world_size)
    first = fabric.is_global_zero
    progress = Progress(quiet=quiet or not first)
    modules = modules or {}
    with ExitStack() as stack:
        stack.enter_context(torch_settings(recipe))
        with together(fabric):
            folder = RunFolder(output, recipe.plain(), fresh=fresh, owner=first, completed=completed)
            stack.enter_context(folder)
        finished = folder.result()
        if finished is not None:
            progress.message(f"{output} is finished; --fresh runs it again")
            return Result(_product(recipe, output, modules), finished, output)
        with together(fabric):
            cast = gather(recipe, modules, products or {})
            if not fresh:
                _restore_unnamed(cast, output)
            engine = prepare(recipe, cast, folder, fabric, progress)
            folder.begin()
            if first:
                _keep_unnamed(cast, output, modules)
        chosen = engine.fit()
        student = _student(engine.method)
        with together(fabric):
            if first:
                students = {"after": student, **_chosen_student(student, chosen)}
                student.save(output / "student.safetensors", epoch=recipe.epochs)
                for name, product in engine.method.products().items():
                    if product is not student:
                        product.save(output / f"{name}.safetensors", epoch=recipe.epochs)
                if "chosen" in students:
                    students["chosen"].save(output / "student-chosen.safetensors", epoch=chosen.epoch)
                measured = measure(recipe, cast.data, cast.initial, cast.teachers, students, fabric.device)
                measured.write(output)
                numbers = measured.numbers
                numbers["taught_by"] = engine.method.taught_by(list(recipe.roles.values()))
                few = _plain_batch(cast.data.train, fabric.device)
                everyone = {"student": student, **cast.teachers}
                numbers["cost"] = {role: cost(model.to(fabric.device), few.x[:1]) for role, model in everyone.items()}
                numbers["share"] = shares(folder.metrics)
                if numbers["chosen"]:
                    numbers["chosen"] = {"epoch": chosen.epoch, **numbers["chosen"]}
                engine.method.draw(output, few)
                folder.finish({**numbers, "seconds": round(engine.seconds, 1), "environment": environment(fabric)})
                report_run(output)
        return Result(student.cpu().eval(), folder.result() or {}, output)


def gather(recipe: Recipe, modules: Modules, products: Mapping[str, Path]) -> Cast:
    """Load a recipe's data and networks; modules and products as in `execute`."""
    data = load_data(**vars(recipe.data))
    wanted: dict[str, Any] = {
        "classes": data.classes,
        "num_classes": data.num_classes or 1,
        "channels": data.channels,
        "image_size": data.image_size,
        "seed": recipe.seed,
    }

    notes: list[str] = []

    def load(role: str, name: str) -> Network:
        if role in modules:
            network = load_model(copy.deepcopy(modules[role]), channels=data.channels)
        else:
            place = f"file:{products[name]}" if name in products else name
            network = load_model(place, stream=f"{role}/init", **wanted)
        if data.classes and network.classes != data.classes and network.reorder(data.classes):
            notes.append(
                f"{role} {network.name} has the classes of {data.name} in another order: its outputs are reordered"
            )
        return network

    if find_method(recipe.method["name"]).trains is Generator:
        student: Model = load_generator(
            copy.deepcopy(modules.get("student", recipe.student)),
            channels=data.channels, image_size=data.image_size, seed=recipe.seed, stream="student/init",
        )  # fmt: skip
    else:
        student = load("student", recipe.student)
    teachers = {role: load(role, name) for role, name in recipe.roles.items()}
    return Cast(data, student, copy.deepcopy(student), teachers, notes, modules)


def check_names(recipes: Iterable[Recipe]) -> None:
    """Raise `UserError` for an unknown model or data set in any of several recipes, before the first of them runs.

    Weights from the hub are left to the runs, and so are the students of earlier stages.
    """
    everything = list(recipes)
    for data in dict.fromkeys(recipe.data.name for recipe in everything):
        find(data)
    networks = [recipe for recipe in everything if find_method(recipe.method["name"]).trains is Network]
    models = (name for recipe in networks for name in (recipe.student, *recipe.roles.values()))
    for model in dict.fromkeys(models):
        if "timm:" not in model and not model.startswith("$"):
            load_model(model, num_classes=10)


def prepare(
    recipe: Recipe, cast: Cast, folder: RunFolder, fabric: lightning_fabric.Fabric, progress: Progress
) -> Engine:
    """The engine that trains a recipe's method, after the pair check."""
    cls, arguments = recipe.method_arguments()
    mixed = recipe.frozen_precision == "bf16-mixed"
    networks = {**cast.teachers, **({"initial": cast.initial} if isinstance(cast.initial, Network) else {})}
    frozen = {role: Frozen(network, fabric.device, mixed=mixed) for role, network in networks.items()}
    with stream(recipe.seed, "method/init"):
        method = cls(cast.student, frozen, **_with_modules(arguments, cast.modules))
    check_available(parse(recipe.corruptions))
    if recipe.corruptions and cast.data.task == "regression":
        raise UserError(f"key 'corruptions' is of images with classes, {recipe.data.name} has numbers: leave it out")
    names = {name: cast.teachers[role] for role, name in recipe.roles.items()}
    notes = list(cast.notes)
    if isinstance(cast.student, Network):
        notes += check_pair(cast.student, names, cast.data, method)
    with stream(recipe.seed, "method/fit"):
        method.fit_to(cast.data.train.images.shape, cast.data.train.index)
    if recipe.precision == "bf16-mixed":
        # The layout of the fast bfloat16 convolutions; torch's types lack it.
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.blend.mixes and "whole labels" in method.needs():
        raise UserError(
            f"blend {recipe.blend.name} mixes labels and the method asks for each sample's class: use a target that needs no "
            "labels, as teacher or partition-unsupervised, or another blend"
        )
    idle = [f"view.{key}" for key in recipe.view.without_effect(cast.data.channels)]
    if idle:
        notes.append(f"{', '.join(idle)}: without effect on images of one channel")
    shards = recipe.accumulate * fabric.world_size
    loader = Loader(
        cast.data.train, batch_size=recipe.batch_size, seed=recipe.seed, shards=shards, workers=recipe.workers
    )
    if loader.batch_size < recipe.batch_size:
        notes.append(f"a step takes {loader.batch_size} samples, not {recipe.batch_size}: {cast.data.name} has no more")
    for role, fields in method.reads().items():
        frozen[role].expect(fields)
        if recipe.blend.name == "none":
            recipe.signals.attach(
                frozen[role], role, fields, cast.data, recipe.view, loader.shard_size, progress.message
            )
    kept = [one.kept for one in frozen.values() if one.kept]
    if kept:
        loader.kept = {one.role: one.reader for one in kept}
        notes.append(check_space(kept, recipe.views))
    elif recipe.signals.store:
        notes.append("signals.store: without effect, as the method asks for no signals of views, or blend changes them")
    engine = Engine(
        fabric,
        method,
        ViewFeed(loader, recipe.view, fabric.device, recipe.blend, cast.data.num_classes),
        replace(recipe, batch_size=loader.batch_size),
        folder,
        frozen=frozen,
        progress=progress,
    )
    if cast.data.heldout is not None:
        engine.evaluate = HeldOut(cast.initial, lambda: _student(method), cast.data.heldout, fabric)
    elif any(player.plateau for player in engine.players.values()):
        raise UserError(f"schedule plateau needs held-out samples, {recipe.data.name} has none: set data.heldout")
    for note in notes:
        progress.message(f"note: {note}")
    return engine


def _with_modules(section: Any, modules: Modules) -> Any:
    """The section with modules in the place of their names."""
    if isinstance(section, Mapping):
        return {key: _with_modules(value, modules) for key, value in section.items()}
    if isinstance(section, list):
        return [_with_modules(value, modules) for value in section]
    return modules.get(section, section) if isinstance(section, str) else section


def _student(method: Method) -> Model:
    """What stands for the student now."""
    student = method.products()["student"]
    assert isinstance(student, Model)
    return student


def _chosen_student(student: Model, chosen: Chosen) -> dict[str, Model]:
    if not chosen.weights:
        return {}
    best = copy.deepcopy(student)
    best.load_state_dict(chosen.weights["student"])
    return {"chosen": best}


def _plain_batch(train: Split, device: torch.device) -> Batch:
    """A few training samples as they are."""
    few = train.subset(torch.linspace(0, len(train) - 1, min(_DRAWN, len(train))).long())
    x = Views.plain(few.images.read(torch.arange(len(few)))).to(device)
    return Batch(index=few.index, view=None, x=x, y=few.labels)


def _product(recipe: Recipe, output: Path, modules: Modules) -> Model:
    """The student of a finished run."""
    path = output / "student.safetensors"
    if find_method(recipe.method["name"]).trains is Generator:
        about = read_about(path)["preprocessing"]
        return load_generator(f"file:{path}", channels=about["channels"], image_size=about["size"]).eval()
    if "student" not in modules:
        return load_model(f"file:{path}").eval()
    weights, about = read_weights(path)
    student = load_model(copy.deepcopy(modules["student"]), channels=about["preprocessing"]["channels"])
    student.body.load_state_dict(weights)
    return student.eval()


def _keep_unnamed(cast: Cast, output: Path, modules: Modules) -> None:
    """Keep what cannot be loaded by name again: the initial student, and teachers given as modules."""
    kept = output / "frozen"
    kept.mkdir(exist_ok=True)
    for role, network in {"initial": cast.initial, **{r: n for r, n in cast.teachers.items() if r in modules}}.items():
        if not (kept / f"{role}.safetensors").exists():
            network.save(kept / f"{role}.safetensors")


def _restore_unnamed(cast: Cast, output: Path) -> None:
    for path in (output / "frozen").glob("*.safetensors"):
        weights, _ = read_weights(path)
        for network in [cast.student, cast.initial] if path.stem == "initial" else [cast.teachers[path.stem]]:
            network.body.load_state_dict(weights)


def estimate(recipe: Recipe) -> dict[str, Any]:
    """Time, disk and memory that a run would take, from a few steps that are thrown away; nothing is written.

    Returns:
        Optimiser steps; seconds of training, with live signals, and of the evaluations between epochs; MiB of the run's folder
        and MiB that come to the store of signals; the highest MiB of memory so far (of the GPU where there is one).

    Raises:
        UserError: as `execute`.
    """
    with torch_settings(recipe):
        fabric = make_fabric(recipe)
        cast = gather(recipe, {}, {})
        engine = prepare(recipe, cast, RunFolder(Path("."), recipe.plain(), owner=False), fabric, Progress(quiet=True))
        kept = [one.kept for one in engine.frozen.values() if one.kept]
        signals = sum(one.need(recipe.views) for one in kept)
        for one in engine.frozen.values():
            one.kept = None
        assert isinstance(engine.feed, ViewFeed)
        engine.feed.loader.kept = {}
        training = seconds_per_step(engine) * engine.clock().total
        evaluation = recipe.epochs * (
            seconds_of_evaluation(cast.student, cast.data.heldout) if cast.data.heldout else 0.0
        )
    product = sum(tensor.nbytes for tensor in _student(engine.method).state_dict().values())
    checkpoint = io.BytesIO()
    torch.save(engine.state(), checkpoint)
    disk = 2 * (checkpoint.tell() + product) + 2 * product
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if fabric.device.type == "cuda":
        memory = torch.cuda.max_memory_allocated()
    return {
        "steps": engine.clock().total,
        "training_seconds": round(training, 1),
        "evaluation_seconds": round(evaluation, 1),
        "disk_mib": round(disk / 2**20, 1),
        "signals_mib": round(signals / 2**20, 1),
        "memory_mib": round(memory / 2**20),
    }


def seconds_of_evaluation(network: Model, split: Split) -> float:
    """Seconds to evaluate a network on a part of the data, from up to 500 of its samples."""
    some = split.subset(torch.arange(min(500, len(split))))
    started = time.monotonic()
    predict(network, some)
    return (time.monotonic() - started) * len(split) / len(some)


def seconds_per_step(engine: Engine, limit: float = 5.0) -> float:
    """Seconds an optimiser step takes, from up to 20 or `limit` seconds of them after a first one."""
    shards = engine.feed.epoch(0, 0, engine.mine)

    def now() -> float:
        if engine.fabric.device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic()

    engine.train_step(shards)
    started = now()
    taken, most = 0, min(20, len(engine.feed) - 1)
    while taken < most and time.monotonic() - started < limit:
        engine.train_step(shards)
        taken += 1
    return (now() - started) / max(1, taken)
