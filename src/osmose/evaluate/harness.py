"""Benchmarks of lm-evaluation-harness, with data from local files."""

import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from osmose.errors import UserError, check, missing_extra, unknown
from osmose.models.language import LanguageModel, without_bars
from osmose.models.model import evaluating

LAYOUTS = ("lambada_openai", "hellaswag", "storycloze_2016", "nq_open", "webqs", "triviaqa")
"""Tasks that the papers name; any other of the harness may be named too."""
SHARES = ("acc", "acc_norm", "exact_match", "em", "f1", "contains")
"""Metrics that are shares of the questions, of which more is better."""
_ANSWER = 256
"""Tokens of an answer at most, the harness's own number; half of what the model takes where that is less."""
_SPLITS = ("training_split", "validation_split", "test_split")
"""Keys of a task that name parts of its data; examples come from the first that is there, where the task says nothing else."""
_SUFFIXES = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


@dataclass(frozen=True)
class HarnessTask:
    """A task of the harness, with data of one's own.

    Attributes:
        name: the harness's.
        definition: its file.
        data: the files of each split.
        kind: of the files, as `datasets` calls it.
    """

    name: str
    definition: Path
    data: dict[str, list[str]]
    kind: str


def find_tasks(asked: Sequence[str], shots: int | None = None) -> list[HarnessTask]:
    """The harness's tasks in "NAME:PATH", and where their data are.

    Args:
        asked: each with a file of its data in the layout they have on the hub (.jsonl, .parquet, .csv), or a folder with files
            that begin with the names of its parts: train..., validation..., test....
        shots: examples before each question; None: as many as the task says. They never come from the file that is scored but
            where the task itself has it so, and the harness leaves out the question that is asked.

    Raises:
        UserError: for what is not so written, a name that the harness does not have, missing files, or a missing extra.
    """
    check(shots is None or shots >= 0, "shots", shots, "at least 0")
    try:
        import lm_eval
    except ModuleNotFoundError as error:
        raise missing_extra("tasks need", "benchmarks") from error
    found = []
    for one in asked:
        name, colon, place = one.partition(":")
        path = Path(place).expanduser()
        if not colon or not place:
            raise UserError(f"task '{one}': write NAME:FILE or NAME:FOLDER, for example lambada_openai:lambada.jsonl")
        if not path.exists():
            raise UserError(f"task '{one}': there is no {path}; check the path")
        definition = _definition(Path(lm_eval.__file__).parent / "tasks", name)
        found.append(
            HarnessTask(name, definition, _files(name, path, _settings(definition), shots), _format(name, path))
        )
    return found


def score_tasks(
    model: LanguageModel,
    tasks: Sequence[HarnessTask],
    *,
    shots: int | None = None,
    limit: int | None = None,
    batch_size: int = 8,
) -> dict[str, dict[str, float]]:
    """What a model scores on tasks of the harness, as their authors define them.

    Args:
        model: the model, on its device.
        tasks: as `find_tasks` gives them.
        shots: as there.
        limit: so many questions a task; none takes all.
        batch_size: questions at a time.

    Returns:
        By task and metric; those of `SHARES` in percent, all others as the harness gives them.

    Raises:
        UserError: for files that do not have the task's layout.
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as folder, evaluating(model), without_bars():
        for task in tasks:
            settings: dict[str, Any] = {
                "include": str(task.definition),
                "task": task.name,
                "tag": [],
                "dataset_path": task.kind,
                "dataset_name": None,
                "dataset_kwargs": {"data_files": task.data},
            }
            (Path(folder) / f"{task.name}.yaml").write_text(yaml.safe_dump(settings))
        short = type("Short", (HFLM,), {"max_gen_toks": min(_ANSWER, (model.longest or 2 * _ANSWER) // 2)})
        harness = short(
            pretrained=model.body,
            tokenizer=model.tokenizer,
            backend="causal",
            batch_size=batch_size,
            device=str(model.device),
        )
        names = [task.name for task in tasks]
        try:
            said: Any = lm_eval.simple_evaluate(
                model=harness,
                tasks=names,
                task_manager=TaskManager(include_path=folder, include_defaults=False, verbosity="ERROR"),
                num_fewshot=shots,
                limit=limit,
                bootstrap_iters=0,
                log_samples=False,
            )
        except torch.OutOfMemoryError as error:
            raise UserError(f"tasks {', '.join(names)}: memory is full: lower batch_size ({batch_size})") from error
        except Exception as error:  # of many kinds: what a template, a function or a reader finds missing
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"tasks {', '.join(names)}: their files do not have the layout of the hub ({type(error).__name__}: {reason})"
            ) from error
    return {name: _plain(said["results"][name]) for name in names}


def _definition(everything: Path, name: str) -> Path:
    """The harness's file that defines a task."""
    line = re.compile(rf"^[\"']?task[\"']?: [\"']?{re.escape(name)}[\"']?\s*$", re.MULTILINE)
    for path in sorted(everything.rglob("*.yaml")):
        if line.search(path.read_text(errors="replace")):
            return path
    raise unknown("task", name, LAYOUTS)


def _format(name: str, place: Path) -> str:
    files = [place] if place.is_file() else sorted(place.iterdir())
    for file in files:
        if file.suffix in _SUFFIXES:
            return _SUFFIXES[file.suffix]
    raise UserError(f"task '{name}': {place} holds none of {', '.join(_SUFFIXES)}: convert its data")


class _Plain(yaml.SafeLoader):
    """Reads the harness's files without the functions that they name."""


_Plain.add_multi_constructor("!", lambda loader, suffix, node: None)


def _settings(definition: Path) -> dict[str, Any]:
    """What a task's file says, and the files that it includes."""
    settings = yaml.load(definition.read_text(), _Plain)
    included = settings.pop("include", None)
    return {**_settings(definition.parent / included), **settings} if included else settings


def _files(name: str, place: Path, task: Mapping[str, Any], shots: int | None) -> dict[str, list[str]]:
    """The files of each part of a task's data; a single file is the part to be scored, whatever the task calls it."""
    config = task.get("fewshot_config") or {}
    own = task.get("fewshot_split") or config.get("split")
    parts = [part for part in (own, *(task.get(key) for key in _SPLITS)) if part] or ["train", "validation", "test"]
    scored, examples = task.get("test_split") or task.get("validation_split") or "test", parts[0]
    found: dict[str, list[str]] = {}
    for file in [place] if place.is_file() else sorted(place.iterdir()):
        part = next((one for one in (*parts, "test", "validation") if file.stem.startswith(one)), None)
        part = scored if place.is_file() else part
        if part and file.suffix in _SUFFIXES:
            found.setdefault(part, []).append(str(file))
    asked = found.get(scored) or found.get("test") or found.get("validation")
    if asked is None:
        raise UserError(f"task '{name}': {place} needs files {scored}..., test... or validation...")
    shots = task.get("num_fewshot") or 0 if shots is None else shots
    apart = "samples" in config or (own and own == task.get("test_split"))  # the harness leaves out the question
    if shots and not apart and found.get(examples, asked) == asked:
        reason, cure = f"come from files {examples}..., and {place} has none", f"{examples}... and {scored}... files"
        if examples == scored:
            reason, cure = "would be questions that are scored", ""
        raise UserError(
            f"task '{name}': the {shots} examples before a question {reason}: give "
            f"{f'a folder with {cure}, or ' if cure else ''}--shots 0"
        )
    return {part: found.get(part, asked) for part in parts}


def _plain(numbers: Mapping[str, Any]) -> dict[str, float]:
    """The metrics without "none" for their filters; with a filter's name where a metric comes through several."""
    values = {key: value for key, value in numbers.items() if isinstance(value, float) and math.isfinite(value)}
    metrics = [key.partition(",")[0] for key in values]
    found = {}
    for key, value in values.items():
        metric = key.partition(",")[0]
        if not metric.endswith("_stderr"):
            found[metric if metrics.count(metric) == 1 else key] = 100 * value if metric in SHARES else value
    return found
