"""Studies: lists of students, teachers, methods, settings and seeds become a grid of runs, each in a folder of its own.

A study is a mapping of these keys, all of them optional:

- `recipe`: a packaged recipe or a recipe file, and `base`: recipe keys laid over it; together what all runs share.
- `students`, `teachers`: models; an entry of `teachers` may be a list, for several at once. `zoo` stands for the whole zoo.
- `methods`: variants by name, each with recipe keys laid over the base.
- `settings`: further recipe keys (`method.temperature`), each with a list of values. A variant may have `settings` of its own.
- `seeds`: seeds of the runs.
- `skip_same`: leave out a student that would be its own teacher (default true).

Every combination is a run, but what a variant fixes itself (`teacher`, `seed`, a setting) is not varied for it. In the names of
students and teachers `$seed` stands for the run's seed, `$genre` for the value of the varied key whose last part is `genre`, and
in a teacher's `$student` for the student's name (`${seed}` before a letter). Where the study leaves `threads` open, runs share
the machine's cores.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from importlib import resources
from itertools import product
from pathlib import Path
from string import Template
from typing import Any

import yaml

from osmose import jobs as processes
from osmose import recipe as recipes
from osmose import table
from osmose.engine.folder import differences
from osmose.errors import UserError, unknown
from osmose.execution import check_names
from osmose.figures.accuracy import Curve, curve, draw_accuracy
from osmose.files import write_atomically
from osmose.models import show_models
from osmose.preflight import refusal
from osmose.recipe import Plain, Recipe
from osmose.report import report_study

_KEYS = ("recipe", "base", "students", "teachers", "methods", "settings", "seeds", "skip_same")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a study.

    Attributes:
        name: its folder's name.
        method: the variant's name.
        settings: the varied recipe keys with this run's values.
        students: its students as the study names them, with `$seed` and the like.
        recipe: the resolved recipe.
    """

    name: str
    method: str
    settings: Plain
    students: tuple[str, ...]
    recipe: Recipe

    def row(self, numbers: Mapping[str, Any]) -> table.Row:
        """The run's row of the study's table, from its result.json."""
        identity = {
            "student": " + ".join(self.recipe.students),
            "teacher": " + ".join(self.recipe.roles.values()) or None,
            "method": self.method,
            "settings": table.joined(_texts(self.settings)),
            "seed": self.recipe.seed,
            "data": self.recipe.data.name,
            "folder": f"runs/{self.name}",
        }
        return table.row(identity, numbers)


def load(name: str) -> Plain:
    """The plain values of a study file, or of a packaged study by name.

    Raises:
        UserError: when there is no such file or study, or it is not a YAML mapping.
    """
    folder = resources.files("osmose").joinpath("recipes", "studies")
    packaged = {file.name.removesuffix(".yaml"): str(file) for file in folder.iterdir()}
    if name not in packaged and not Path(name).is_file():
        raise unknown("study file or packaged study", name, packaged)
    return recipes.load(packaged.get(name, name))


def expand(study: Mapping[str, Any]) -> list[Cell]:
    """Every run of a study, resolved, in the order of its lists: methods, settings, students, teachers, seeds.

    Raises:
        UserError: for a mistake in any run: an unknown key, model or data set, a wrong type, two runs of one name.
    """
    for key in study:
        if key not in _KEYS:
            raise unknown("study key", str(key), _KEYS)
    packaged = recipes.load(str(study["recipe"])) if "recipe" in study else {}
    base = recipes.merge(packaged, _mapping(study, "base"))
    axes = {
        "student": _models(study, "students", (str, list)),
        "teacher": _models(study, "teachers", (str, list, type(None))),
        "seed": _list(study, "seeds", (int,)),
    }
    axes = {key: values for key, values in axes.items() if values}
    skip_same = bool(axes.get("teacher")) and study.get("skip_same", True)
    found: dict[str, Cell] = {}
    for method, variant in (_mapping(study, "methods") or {"": {}}).items():
        if not isinstance(variant, Mapping):
            raise UserError(
                f"study method '{method}' is {variant!r}: give recipe keys, for example {{method: distill}}"
            )
        settings = {**_mapping(study, "settings"), **_mapping(variant, "settings")}
        own = {key: value for key, value in variant.items() if key != "settings"}
        for key in _mapping(variant, "settings"):
            if _fixes(own, key):
                raise UserError(
                    f"study method '{method}' has both a value and a list for '{key}': leave one of them out"
                )
        open_axes = {key: values for key, values in axes.items() if key not in own}
        open_settings = {key: _list(settings, key) for key in settings if not _fixes(own, key)}
        for cell in _variant(str(method), recipes.merge(base, own), open_settings, open_axes):
            if skip_same and "teacher" not in own and set(cell.recipe.students) <= set(cell.recipe.roles.values()):
                continue
            if cell.name in found:
                raise UserError(f"the study has two runs called '{cell.name}': give every name, seed and value once")
            found[cell.name] = cell
    if not found:
        raise UserError("the study has no runs: give a teacher other than the student, or skip_same: false")
    check_names(cell.recipe for cell in found.values())
    return list(found.values())


def run(
    study: Mapping[str, Any],
    folder: Path,
    *,
    command: str,
    jobs: int = 1,
    quiet: bool = True,
    start: processes.Start = processes.start_run,
) -> Plain:
    """Execute what is missing of a study, and keep its table up to date.

    Args:
        study: the study's plain values.
        folder: gets study.yaml, table.parquet, table.md, accuracy.svg, report.html, and in runs/ a folder, a recipe and a log for
            each run.
        command: how the table is made again, for table.md.
        jobs: runs at a time; each gets its share of the cores, where the study does not say how many threads it has.
        quiet: show no progress.
        start: starts a run.

    Returns:
        {"runs": how many, "finished": how many, "failed": reasons by name, "table": path of table.md, "summary": as
        `table.summarise`}.

    Raises:
        UserError: for a mistake in any run, or a folder that holds the run of another recipe; nothing was started then.
    """
    if jobs < 1:
        raise UserError(f"--jobs is {jobs}: give a number of runs at a time, at least 1")
    table.check_installed()
    cells = expand(study)
    runs = folder / "runs"
    with processes.locked(runs, quiet=quiet) as lock:
        share = max(1, (os.cpu_count() or 1) // jobs)
        cells = [_settle(cell, runs / cell.name, share) for cell in cells]
        _check(cells, runs)
        write_atomically(folder / "study.yaml", yaml.safe_dump(dict(study), sort_keys=False).encode())

        def tabulate(results: Mapping[str, Plain]) -> list[table.Row]:
            rows = [cell.row(results[cell.name]) for cell in cells if cell.name in results]
            table.write(folder, rows, _about(cells, results, command))
            return rows

        results, failed = processes.execute(
            {cell.name: cell.recipe for cell in cells},
            runs, jobs=jobs, lock=lock, update=tabulate, quiet=quiet, start=start,
        )  # fmt: skip
        rows = tabulate(results)
        _draw(folder, [cell for cell in cells if cell.name in results])
        report_study(folder)
    return {
        "runs": len(cells),
        "finished": len(results),
        "failed": failed,
        "table": str(folder / "table.md"),
        "summary": table.summarise(rows),
    }


def _variant(
    method: str, plain: Plain, settings: Mapping[str, list[Any]], axes: Mapping[str, list[Any]]
) -> Iterator[Cell]:
    """The runs of one variant; `plain` is what they share."""
    for setting in _combinations(settings):
        values = reduce(recipes.merge, (_nested(key, value) for key, value in setting.items()), plain)
        resolved: Recipe | None = None
        for cast in _combinations(axes):
            try:  # only once: resolving takes long, and the lists' types are checked
                resolved = resolved or recipes.resolve({**values, **cast})
            except UserError as error:
                raise UserError(f"study method '{method}': {error}" if method else str(error)) from None
            recipe = replace(resolved, **cast)
            last = [key.split(".")[-1] for key in setting]
            known = {
                one: _text(value) for one, value in zip(last, setting.values(), strict=True) if last.count(one) == 1
            }
            students, known = tuple(recipe.students), known | {"seed": str(recipe.seed)}
            recipe = replace(recipe, student=_named(recipe.student, known))
            recipe = replace(recipe, teacher=_named(recipe.teacher, known | {"student": "+".join(recipe.students)}))
            label = method or recipe.method["name"]
            yield Cell(
                name=_name(label, setting, recipe), method=label, settings=setting, students=students, recipe=recipe
            )


def _settle(cell: Cell, folder: Path, threads: int) -> Cell:
    """The cell with a number of threads where the study leaves it open; a run that was begun keeps its own.

    Raises:
        UserError: when `folder` holds the run of another recipe.
    """
    saved = folder / "recipe.yaml"
    there = recipes.completed(yaml.safe_load(saved.read_text())) if saved.exists() else None
    if cell.recipe.threads is None:
        cell = replace(cell, recipe=replace(cell.recipe, threads=there["threads"] if there else threads))
    changed = differences(there, cell.recipe.plain()) if there else ""
    if changed:
        raise UserError(f"{folder} holds a run of another recipe ({changed}): delete it, or give another --output")
    return cell


def _check(cells: Sequence[Cell], runs: Path) -> None:
    """Try whether a run of each method and student can begin, where none of them has, so that hours do not end in a mistake.

    Raises:
        UserError: for what the run would refuse before its first step.
    """
    kinds: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        kinds.setdefault((cell.method, *cell.students), []).append(cell)
    first = {
        group[0].name: group[0].recipe
        for group in kinds.values()
        if group[0].recipe.devices == 1 and not any((runs / cell.name / "recipe.yaml").exists() for cell in group)
    }
    refused = refusal(first) if first else None
    if refused:
        raise UserError("{} cannot run: {}".format(*refused))


def _draw(folder: Path, finished: Sequence[Cell]) -> None:
    """accuracy.svg: held-out accuracy against steps, of the runs whose metrics are here.

    There is a line for each method and its settings, or, where they are many, for all settings of a method.
    """
    lines = [table.named(cell.method, _texts(cell.settings)) for cell in finished]
    if len(set(lines)) > _LINES:
        lines = [cell.method for cell in finished]
    methods: dict[str, list[Curve]] = {}
    for cell, line in zip(finished, lines, strict=True):
        metrics = folder / "runs" / cell.name / "metrics.jsonl"
        found = curve(map(json.loads, metrics.read_text().splitlines())) if metrics.exists() else []
        if found:
            methods.setdefault(line, []).append(found)
    if methods:
        draw_accuracy(folder / "accuracy.svg", methods)


def _about(cells: Sequence[Cell], results: Mapping[str, Plain], command: str) -> dict[str, str]:
    """What table.md says above its tables."""
    machines = (", ".join(f"{key} {value}" for key, value in one["environment"].items()) for one in results.values())
    return {
        "Made by": f"`{command}`",
        "Runs": f"{len(results)} of {len(cells)} finished",
        "Data": ", ".join(dict.fromkeys(cell.recipe.data.name for cell in cells)),
        "Seeds": ", ".join(dict.fromkeys(str(cell.recipe.seed) for cell in cells)),
        "Machine": "; ".join(dict.fromkeys(machines)),
    }


def _models(study: Mapping[str, Any], key: str, kinds: tuple[type, ...]) -> list[Any]:
    if study.get(key) != "zoo":
        return _list(study, key, kinds)
    found = [model["name"] for model in show_models() if model["bytes"]]
    if not found:
        raise UserError("the zoo has no weights in this installation: reinstall osmose, or list fresh:zoo:NAME")
    return found


def _list(section: Mapping[str, Any], key: str, kinds: tuple[type, ...] = (object,)) -> list[Any]:
    values = section.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, kinds) for value in values):
        example = "[0, 1]" if kinds == (int,) else "[zoo:cnn-s, zoo:vit-s]" if str in kinds else "[1, 4]"
        raise UserError(f"study key '{key}' is {values!r}: give a list, for example {example}")
    return values


def _mapping(section: Mapping[str, Any], key: str) -> Plain:
    value = section.get(key) or {}
    if not isinstance(value, Mapping):
        raise UserError(f"study key '{key}' is {value!r}: give keys with values")
    return dict(value)


def _combinations(lists: Mapping[str, list[Any]]) -> list[Plain]:
    return [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]


def _nested(key: str, value: Any) -> Plain:
    """{"a": {"b": value}} for the key "a.b"."""
    nested: Plain = reduce(lambda inner, part: {part: inner}, reversed(key.split(".")), value)
    return nested


def _fixes(variant: Any, key: str) -> bool:
    """Whether the variant has the dotted key."""
    first, _, rest = key.partition(".")
    return isinstance(variant, Mapping) and first in variant and (not rest or _fixes(variant[first], rest))


_LINES = 10
"""Lines in one figure that are told apart by their colours."""
_LONGEST = 200
"""Bytes of a run's name; file systems allow 255, and files beside the run's folder have longer names."""


def _named(names: Any, known: Mapping[str, str]) -> Any:
    """A name, a list of names, or none, with what is known of the run in the place of `$seed` and others."""
    if isinstance(names, list):
        return [_named(name, known) for name in names]
    return names and Template(names).safe_substitute(known)


def _name(method: str, settings: Plain, recipe: Recipe) -> str:
    """STUDENT-from-TEACHER-METHOD-KEY=VALUE-seedN, of characters that are safe in a path; of long ones the two ends, and a digest
    in place of the middle."""
    teachers = "+".join(recipe.roles.values())
    parts = [
        "+".join(recipe.students),
        *([f"from-{teachers}"] if teachers else []),
        method,
        *(f"{key.split('.')[-1]}={_text(value)}" for key, value in settings.items()),
        f"seed{recipe.seed}",
    ]
    name = re.sub(r"[^\w.+=,-]+", "-", "-".join(parts).replace("zoo:", "")).encode()
    if len(name) > _LONGEST:
        digest = hashlib.sha256(name).hexdigest()[:8].encode()
        name = b"-".join([name[: _LONGEST // 3], digest, name[-_LONGEST // 2 :]])
    return name.decode(errors="ignore")


def _texts(settings: Plain) -> dict[str, str]:
    return {key: _text(value) for key, value in settings.items()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
