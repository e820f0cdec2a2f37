"""Benchmarks of lm-evaluation-harness, with data from local files."""

import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from osmose.errors import UserError, check, missing_extra, unknown
from osmose.evaluate.predict import evaluating
from osmose.models.language import LanguageModel, without_bars

LAYOUTS = ("lambada_openai", "hellaswag", "storycloze_2016", "nq_open", "webqs", "triviaqa")
"""Tasks that the papers name; any other of the harness may be named too."""
_ANSWER = 256
"""Tokens of an answer at most, the harness's own number; half of what the model takes where that is less."""
_SUFFIXES = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


def find_tasks(asked: Sequence[str]) -> dict[str, Path]:
    """The harness's tasks in "NAME:PATH", and where their data are.

    Raises:
        UserError: for what is not so written, a name that the harness does not have, or a path that is not there.
    """
    found = {}
    for one in asked:
        name, colon, place = one.partition(":")
        path = Path(place).expanduser()
        if not colon or not place:
            raise UserError(f"task '{one}': write NAME:FILE or NAME:FOLDER, for example lambada_openai:lambada.jsonl")
        if not path.exists():
            raise UserError(f"task '{one}': there is no {path}; check the path")
        found[name] = path
    return found


def score_tasks(
    model: LanguageModel, tasks: Mapping[str, Path], *, shots: int = 0, limit: int | None = None, batch_size: int = 8
) -> dict[str, dict[str, float]]:
    """What a model scores on tasks of the harness, as their authors define them.

    Args:
        model: the model, on its device.
        tasks: the tasks' names, each with a file of its data in the layout they have on the hub (.jsonl, .parquet, .csv), or a
            folder with files train..., validation... and test....
        shots: examples before each question, from the training file.
        limit: so many questions a task; none takes all.
        batch_size: questions at a time.

    Returns:
        By task and metric; accuracies and exact matches in percent.

    Raises:
        UserError: for a name that the harness does not have, files that do not fit the task, or a missing extra.
    """
    check(shots >= 0, "shots", shots, "at least 0")
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        raise missing_extra("tasks need", "benchmarks") from error
    everything = Path(lm_eval.__file__).parent / "tasks"
    with tempfile.TemporaryDirectory() as folder, evaluating(model), without_bars():
        for name, place in tasks.items():
            settings: dict[str, Any] = {
                "include": str(_definition(everything, name)),
                "task": name,
                "tag": [],
                "dataset_path": _format(name, place),
                "dataset_name": None,
                "dataset_kwargs": {"data_files": _files(name, place, shots)},
            }
            (Path(folder) / f"{name}.yaml").write_text(yaml.safe_dump(settings))
        short = type("Short", (HFLM,), {"max_gen_toks": min(_ANSWER, (model.longest or 2 * _ANSWER) // 2)})
        harness = short(
            pretrained=model.body,
            tokenizer=model.tokenizer,
            backend="causal",
            batch_size=batch_size,
            device=str(model.device),
        )
        try:
            said: Any = lm_eval.simple_evaluate(
                model=harness,
                tasks=list(tasks),
                task_manager=TaskManager(include_path=folder, include_defaults=False, verbosity="ERROR"),
                num_fewshot=shots,
                limit=limit,
                bootstrap_iters=0,
                log_samples=False,
            )
        except (KeyError, ValueError, TypeError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"tasks {', '.join(tasks)}: their files do not have the layout of the hub ({type(error).__name__}: {reason})"
            ) from None
    return {name: _percent(said["results"][name]) for name in tasks}


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


def _files(name: str, place: Path, shots: int) -> dict[str, list[str]]:
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


def _percent(numbers: Mapping[str, Any]) -> dict[str, float]:
    """The metrics under plain names, shares as percentages."""
    found = {}
    for key, value in numbers.items():
        metric, _, _ = key.partition(",")
        if isinstance(value, float) and not metric.endswith("_stderr") and math.isfinite(value):
            found[metric] = value if metric == "perplexity" else 100 * value
    return found
