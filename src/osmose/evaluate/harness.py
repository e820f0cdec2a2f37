"""Benchmarks of lm-evaluation-harness, with data from local files."""

import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
            train..., validation... and test....
        shots: examples before each question, from the training file; None: as many as the task says.

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
        found.append(HarnessTask(name, definition, _files(name, path, shots), _format(name, path)))
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
        except Exception as error:  # of many kinds: what a template, a function or a reader finds missing
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"tasks {', '.join(names)}: their files do not have the layout of the hub ({type(error).__name__}: {reason})"
            ) from error
    return {name: _plain(said["results"][name]) for name in names}


def _definition(everything: Path, name: str) -> Path:
    """The harness's file that defines a task."""
    line = re.compile(rf"^task: ['\"]?{re.escape(name)}['\"]?\s*$", re.MULTILINE)
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


def _files(name: str, place: Path, shots: int | None) -> dict[str, list[str]]:
    """The files of each split; a single file is the one to be scored, whatever the task calls it."""
    if place.is_file():
        if shots:
            raise UserError(
                f"task '{name}': examples come from a training file: give a folder with train... and test... files"
            )
        return {split: [str(place)] for split in ("train", "validation", "test")}  # the training file is not looked at
    found: dict[str, list[str]] = {}
    for file in sorted(place.iterdir()):
        split = next((one for one in ("train", "validation", "test") if file.stem.startswith(one)), None)
        if split and file.suffix in _SUFFIXES:
            found.setdefault(split, []).append(str(file))
    if not found.keys() & {"validation", "test"} or (shots and "train" not in found):
        raise UserError(
            f"task '{name}': {place} needs files test... or validation...{' and train...' if shots else ''}"
        )
    scored = found.get("test") or found["validation"]
    return {"train": scored, "validation": scored, "test": scored} | found


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
