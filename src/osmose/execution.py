"""From a recipe to a finished run folder."""

import copy
import io
import resource
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning_fabric
import torch

from osmose.data.feed import LoaderFeed
from osmose.data.loader import Loader
from osmose.engine.chosen import Chosen
from osmose.engine.fabric import make_fabric, torch_settings
from osmose.engine.folder import RunFolder
from osmose.engine.loop import Engine
from osmose.engine.method import Method
from osmose.engine.progress import Progress
from osmose.engine.sharding import unsharded
from osmose.errors import UserError, first_line
from osmose.measure import environment, shares
from osmose.models.model import Model
from osmose.processes import together
from osmose.random import stream
from osmose.recipe import Recipe, completed
from osmose.report import report_run
from osmose.signals.kept import check_space
from osmose.tasks import Modules, Task, find_task


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


def execute(
    recipe: Recipe,
    output: Path,
    *,
    fresh: bool = False,
    quiet: bool = False,
    modules: Modules | None = None,
    products: Mapping[str, Path] | None = None,
    begins: Callable[[], None] = lambda: None,
) -> Result:
    """Run a recipe in the folder `output`: begin, go on after an interruption, or hand back the finished result.

    Args:
        recipe: what to run.
        output: the run's folder.
        fresh: discard what is in the folder.
        quiet: show no progress.
        modules: networks that take the place of the recipe's names.
        products: the run folders whose students the names `$NAME` in the recipe stand for.
        begins: called where nothing is wrong with the recipe, before anything is written of it.

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
            return Result(find_task(recipe).product(recipe, output, modules).eval(), finished, output)
        with together(fabric):
            task = gather(recipe, modules, products or {})
            trains = {name: parameter.requires_grad for name, parameter in task.student.named_parameters()}
            if not fresh:
                _restore_unnamed(task, output)
            engine = prepare(recipe, task, folder, fabric, progress)
            begins()
            folder.begin()
            if first:
                _keep_unnamed(task, output)
        try:
            chosen = engine.fit()
        except torch.OutOfMemoryError as error:
            cure = "raise accumulate" + (
                ", lower data.length, or set method.checkpoint_activations" if recipe.is_text else ""
            )
            raise UserError(f"the GPU's memory is too small for a micro-batch ({first_line(error)}): {cure}") from None
        except ValueError as error:
            if not str(error).startswith("Expected more than 1 value per channel"):  # torch's batch normalisation
                raise
            raise UserError(
                "batch normalisation needs more than one value of a channel, and a micro-batch is one sample whose map is one "
                "place: raise batch_size, or lower accumulate"
            ) from None
        student = _student(engine.method)
        if recipe.sharded:
            student = _gathered(student, task)
        student.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # as it will come from disk
        with together(fabric):
            if first:
                epoch = recipe.epochs if engine.step == engine.clock().total else chosen.epoch
                students = {"after": student, **_chosen_student(student, chosen, epoch)}
                for model in students.values():
                    model.settle()
                for name, product in {**engine.method.products(), "student": student}.items():
                    product.save(output / (name + product.suffix), epoch=epoch)
                if "chosen" in students:
                    students["chosen"].save(output / f"student-chosen{student.suffix}", epoch=chosen.epoch)
                measured = task.measure(students, fabric.device)
                measured.write(output)
                numbers = measured.numbers
                numbers["taught_by"] = engine.method.taught_by(list(recipe.roles.values()))
                few = task.few(fabric.device)
                everyone = {**task.members(student), **task.teachers}
                numbers["cost"] = {role: task.cost(model.to(fabric.device)) for role, model in everyone.items()}
                numbers["share"] = shares(folder.metrics)
                if numbers["chosen"]:
                    numbers["chosen"] = {"epoch": chosen.epoch, **numbers["chosen"]}
                engine.method.draw(output, few)
                folder.finish({**numbers, "seconds": round(engine.seconds, 1), "environment": environment(fabric)})
                report_run(output)
        for name, parameter in student.named_parameters():  # as it came, whatever the method trained of it
            parameter.detach_().requires_grad_(trains.get(name, parameter.is_floating_point()))
        return Result(student.cpu().eval(), folder.result() or {}, output)


def gather(recipe: Recipe, modules: Modules, products: Mapping[str, Path]) -> Task:
    """Load a recipe's data and networks; modules and products as in `execute`."""
    return find_task(recipe).gather(recipe, modules, products)


def check_names(recipes: Iterable[Recipe]) -> None:
    """Raise `UserError` for an unknown model or data set in any of several recipes, before the first of them runs."""
    everything = list(recipes)
    for task in {find_task(recipe): None for recipe in everything}:
        task.check_names([recipe for recipe in everything if find_task(recipe) is task])


def prepare(
    recipe: Recipe, task: Task, folder: RunFolder, fabric: lightning_fabric.Fabric, progress: Progress
) -> Engine:
    """The engine that trains a recipe's method, after the pair check."""
    cls, arguments = recipe.method_arguments()
    frozen = {role: task.frozen(network, fabric.device) for role, network in task.speakers().items()}
    with stream(recipe.seed, "method/init"):
        method = cls(task.student, frozen, **_with_modules(arguments, task.modules))
    notes = [*task.notes, *task.check(method)]
    train = task.data.train
    shards = recipe.accumulate * fabric.world_size
    loader = Loader(train, batch_size=recipe.batch_size, seed=recipe.seed, shards=shards, workers=recipe.workers)
    if loader.batch_size < recipe.batch_size:
        notes.append(f"a step takes {loader.batch_size} samples, not {recipe.batch_size}: {task.data.name} has no more")
    feed = task.feed(loader, fabric.device)
    with stream(recipe.seed, "method/fit"):
        method.fit_to(feed.shapes, train.index)
    notes += method.notes()
    # The layout of the fast convolutions; torch's types lack it.
    method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for role, fields in method.reads().items():
        frozen[role].expect(fields)
        if feed.numbered:
            recipe.signals.attach(frozen[role], role, task.data, recipe.viewed, loader.shard_size, progress.message)
    kept = [one.kept for one in frozen.values() if one.kept]
    if kept:
        loader.kept = {one.role: one.reader for one in kept}
        notes.append(check_space(kept, recipe.views))
    elif recipe.signals.store:
        notes.append("signals.store: without effect, as the method asks for no signals of views, or blend changes them")
    settings = replace(recipe, batch_size=loader.batch_size)
    assert not any(module.training for one in frozen.values() for module in one.network.modules()), (
        "frozen, yet training"
    )
    score = task.score(lambda: _student(method), fabric)
    engine = Engine(fabric, method, feed, settings, folder, evaluate=score, frozen=frozen, progress=progress)
    if engine.evaluate is None and any(player.plateau for player in engine.players.values()):
        raise UserError(
            f"schedule plateau needs held-out samples with labels, {recipe.data.name} has none: set data.heldout or data.labelled"
        )
    method.moving(engine.clock())  # a method may refuse a run of this length
    notes += _long_warmups(engine)
    for note in notes:
        progress.message(f"note: {note}")
    return engine


def _long_warmups(engine: Engine) -> list[str]:
    """A note for each warm-up that the run ends in."""
    rising: dict[float, dict[str, None]] = {}
    for name, player in engine.players.items():
        if player.warmup_epochs >= engine.settings.epochs:
            whole, _, _ = name.partition("/")  # what is in front of "/" shares its optimiser's settings
            rising.setdefault(player.warmup_epochs, {})[whole] = None
    return [
        f"the learning rate of {', '.join(names)} rises for {epochs:g} epochs, and the run ends after {engine.settings.epochs}: "
        "lower that optimiser's warmup_epochs, or train for longer"
        for epochs, names in rising.items()
    ]


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


def _gathered(student: Model, task: Task) -> Model:
    """A student that is spread over processes, whole in each of them."""
    model = copy.deepcopy(task.initial)
    model.load_state_dict(unsharded(student.state_dict()))
    return model


def _chosen_student(student: Model, chosen: Chosen, epochs: int) -> dict[str, Model]:
    """The student after the chosen epoch; where that is the last one, the very same network."""
    if not chosen.weights:
        return {}
    if chosen.epoch == epochs:
        return {"chosen": student}
    best = copy.deepcopy(student)
    best.load_state_dict(chosen.weights["student"])
    return {"chosen": best}


def _keep_unnamed(task: Task, output: Path) -> None:
    """Keep what cannot be loaded by name again: the initial student, and teachers given as modules."""
    kept = output / "frozen"
    kept.mkdir(exist_ok=True)
    unnamed = {"initial": task.initial, **{r: n for r, n in task.teachers.items() if r in task.modules}}
    for role, network in unnamed.items():
        place = kept / f"{role}{network.suffix}"
        if not network.saved(place):
            network.save(place)


def _restore_unnamed(task: Task, output: Path) -> None:
    for role, networks in {
        "initial": [task.student, task.initial],
        **{r: [n] for r, n in task.teachers.items()},
    }.items():
        for network in networks:
            place = output / "frozen" / f"{role}{network.suffix}"
            if network.saved(place):
                network.restore(place)


def check(recipe: Recipe) -> None:
    """Load what a run on one device needs and put it together, without a step; nothing but `data.cache` is written.

    Raises:
        UserError: as `execute` before its first step.
    """
    with torch_settings(recipe):
        _dry(recipe, quiet=True)


def _dry(recipe: Recipe, *, quiet: bool) -> tuple[Task, Engine]:
    """A recipe's task and engine, in no folder."""
    fabric = make_fabric(recipe)
    task = gather(recipe, {}, {})
    folder = RunFolder(Path("."), recipe.plain(), owner=False)
    return task, prepare(recipe, task, folder, fabric, Progress(quiet=quiet))


def estimate(recipe: Recipe, *, quiet: bool = True) -> dict[str, Any]:
    """Time, disk and memory that a run would take, from a few steps that are thrown away; nothing but
    `data.cache` is written.

    Args:
        recipe: what would be run.
        quiet: do not say the run's notes.

    Returns:
        Optimiser steps; seconds of training, with live signals, and of the evaluations between epochs; MiB of the run's folder
        and MiB that come to the store of signals; the highest MiB of memory so far (of the GPU where there is one).

    Raises:
        UserError: as `execute`.
    """
    with torch_settings(recipe):
        task, engine = _dry(recipe, quiet=quiet)
        kept = [one.kept for one in engine.frozen.values() if one.kept]
        signals = sum(one.need(recipe.views) for one in kept)
        for one in engine.frozen.values():
            one.kept = None
        assert isinstance(engine.feed, LoaderFeed)
        engine.feed.loader.kept = {}
        training = seconds_per_step(engine) * engine.clock().total
        evaluation = recipe.epochs * task.seconds_of_evaluation()
    product = sum(tensor.nbytes for tensor in _student(engine.method).parameters())
    checkpoint = io.BytesIO()
    torch.save(engine.state(), checkpoint)
    disk = 2 * (checkpoint.tell() + product) + 2 * product
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if engine.fabric.device.type == "cuda":
        memory = torch.cuda.max_memory_allocated()
    return {
        "steps": engine.clock().total,
        "training_seconds": round(training, 1),
        "evaluation_seconds": round(evaluation, 1),
        "disk_mib": round(disk / 2**20, 1),
        "signals_mib": round(signals / 2**20, 1),
        "memory_mib": round(memory / 2**20),
    }


def seconds_per_step(engine: Engine, limit: float = 5.0) -> float:
    """Seconds an optimiser step takes, from up to 20 or `limit` seconds of them after a first one, or from an only one."""
    shards = engine.feed.epoch(0, 0, engine.mine)

    def now() -> float:
        if engine.fabric.device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic()

    started = now()
    engine.train_step(shards)
    most = min(20, len(engine.feed) - 1)
    if not most:
        return now() - started
    started, taken = now(), 0
    while taken < most and time.monotonic() - started < limit:
        engine.train_step(shards)
        taken += 1
    return (now() - started) / max(1, taken)
