"""The folder of one run: its lock, its recipe, its metrics and its result."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from osmose.errors import UserError
from osmose.files import cannot_write, write_atomically

Plain = dict[str, Any]

_OWN = (
    "result.json",
    "passages.json",
    "student",
    "student-chosen",
    "student*.part",
    "student*.old",
    "metrics.jsonl",
    "checkpoints",
    "frozen",
    "*.safetensors",
    "*.svg",
    "*.png",
    "report.html",
    "recipe.yaml",
)
"""What a run leaves, in the order in which it is discarded: while anything is there, the recipe still says of what. Without
a recipe it is somebody else's."""


_NAMED = 6
"""Differences between two recipes that an error names."""


class RunFolder:
    """Everything one run keeps, in one folder that a single process may use at a time.

    Used as a context manager: it takes the lock on entering and gives it back on leaving. A folder that it made is gone again
    when the run did not begin.

    Args:
        path: the folder; made when missing.
        recipe: the resolved recipe, as plain values.
        fresh: discard what an earlier run left in the folder, when the new one begins.
        owner: whether this process writes; of several processes in one run only the first does.
        completed: gives a saved recipe the keys that it lacks because an earlier version saved it.

    Raises:
        UserError: on entering, when the folder cannot be written, is in use by another process, holds files that a run would
            write and none did, or holds the run of another recipe (the difference is named).
    """

    def __init__(
        self,
        path: Path,
        recipe: Plain,
        *,
        fresh: bool = False,
        owner: bool = True,
        completed: Callable[[Plain], Plain] = lambda saved: saved,
    ) -> None:
        self.path, self.recipe, self.fresh, self.owner, self.completed = path, recipe, fresh, owner, completed
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"

    def __enter__(self) -> "RunFolder":
        if self.owner:
            self._take()
        return self

    def _take(self) -> None:
        self._new = not self.path.exists()
        saved = self.path / "recipe.yaml"
        if not saved.exists() and (foreign := self._own()):
            raise UserError(
                f"{self.path} holds '{foreign[0].name}', which no run made and this one might write over: give another --output"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / "lock").open("a")
        except OSError as error:
            raise cannot_write(self.path, error) from error
        try:
            # Not flock: loader processes would inherit it and hold it for seconds after this one was killed.
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            self._lock.close()
            raise UserError(
                f"{self.path} is in use by another process: wait for it, or give another --output"
            ) from None
        if saved.exists() and not self.fresh:
            self._compare(self.completed(yaml.safe_load(saved.read_text())))

    def begin(self) -> None:
        """Write recipe.yaml: from now on the folder belongs to this recipe, and with `fresh` only now what was there goes."""
        if self.owner:
            if self.fresh:
                self._clear()
            write_atomically(self.path / "recipe.yaml", yaml.safe_dump(self.recipe, sort_keys=False).encode())
            self._new = False
            for place in (self.path, self.checkpoints, self.path / "frozen"):
                for part in place.glob("*.[0-9]*.part"):  # of a process that was killed while it wrote
                    _remove(part)
        self.fresh = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.owner:
            if self._new:
                shutil.rmtree(self.path, ignore_errors=True)
            self._lock.close()

    def result(self) -> dict[str, Any] | None:
        """The finished run's numbers, or None while it is not finished."""
        return None if self.fresh else finished(self.path)

    def finish(self, result: dict[str, Any]) -> None:
        """Write result.json: from now on the run is finished."""
        write_atomically(self.path / "result.json", json.dumps(result, indent=2).encode(), b"\n")

    def rewind(self, size: int) -> None:
        """Cut metrics.jsonl back to the `size` bytes it had at a checkpoint.

        Raises:
            UserError: when it is shorter than that.
        """
        if not self.owner:
            return
        if self.size(synced=False) < size:
            raise UserError(
                f"{self.metrics} is shorter than when the checkpoint was written: bring it back, or start anew with --fresh"
            )
        if self.metrics.exists():
            os.truncate(self.metrics, size)

    def write(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        if not self.owner:
            return
        try:
            with self.metrics.open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise cannot_write(self.metrics, error) from error

    def size(self, *, synced: bool = True) -> int:
        """Bytes in metrics.jsonl; with `synced` only after all of them are on the disk."""
        if not self.metrics.exists():
            return 0
        if synced:
            with self.metrics.open("a") as file:
                os.fsync(file.fileno())
        return self.metrics.stat().st_size

    def _own(self) -> list[Path]:
        """What is there of all that a run leaves, in the order in which it is discarded."""
        return [found for pattern in _OWN for found in sorted(self.path.glob(pattern))]

    def _clear(self) -> None:
        for path in self._own():
            _remove(path)

    def _compare(self, saved: dict[str, Any]) -> None:
        changed = differences(saved, self.recipe)
        if changed:
            raise UserError(
                f"{self.path} holds a run of another recipe ({changed}): "
                "give another --output, or --fresh to discard it"
            )


def finished(folder: Path) -> dict[str, Any] | None:
    """The numbers of the finished run in `folder`, or None."""
    path = folder / "result.json"
    return json.loads(path.read_text()) if path.exists() else None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def differences(old: Any, new: Any) -> str:
    """The keys in which two recipes of plain values differ, with both values, in one line; empty when they are equal."""
    found = [f"{key}: {there!r} there, {now!r} now" for key, there, now in _changed(old, new, "")]
    return "; ".join(found[:_NAMED] + ([f"and {len(found) - _NAMED} more"] if len(found) > _NAMED else []))


def _changed(old: Any, new: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from _changed(old.get(name), new.get(name), f"{key}.{name}" if key else str(name))
    elif old != new:
        yield key, old, new
