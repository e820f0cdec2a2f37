"""Several runs at a time, each `osmose run` in a process of its own."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from osmose import user_code
from osmose.engine.folder import finished
from osmose.engine.interrupt import interruptions
from osmose.files import cannot_write, write_atomically
from osmose.recipe import Recipe

_POLL = 0.1
"""Seconds between two looks at the running processes."""


class Process(Protocol):
    """A run on its way; `subprocess.Popen` is one."""

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""

    def terminate(self) -> None:
        """Ask it to write a checkpoint and stop."""

    def wait(self) -> int:
        """Wait for its end."""


Start = Callable[[Recipe, Path, int], Process]
"""Starts a recipe's run in a folder; the run keeps the given file descriptor open for as long as it lives."""


def start_run(recipe: Recipe, folder: Path, lock: int) -> Process:
    """`osmose run` on FOLDER.yaml, which is written here; what it says is added to FOLDER.log."""
    source = folder.with_name(folder.name + ".yaml")
    write_atomically(source, yaml.safe_dump(recipe.plain(), sort_keys=False).encode())
    command = [sys.executable, "-m", "osmose", "run", str(source), "--output", str(folder), "--json"]
    command += [text for path in user_code.imported for text in ("--import", str(path))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(recipe.threads)}
    with _log(folder).open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env=environment, pass_fds=[lock]
        )


@contextmanager
def locked(folder: Path, *, quiet: bool) -> Iterator[int]:
    """Inside the block this process and the runs it starts have `folder` for themselves; gives the lock's file descriptor.

    Waits for an earlier study, and for runs that a killed one left behind.

    Raises:
        UserError: when the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("a")
    except OSError as error:
        raise cannot_write(folder, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not quiet:
                print(f"waiting for another study's runs in {folder} to end", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def execute(
    recipes: Mapping[str, Recipe],
    folder: Path,
    *,
    jobs: int,
    lock: int,
    update: Callable[[Mapping[str, Any]], object],
    quiet: bool = True,
    start: Start = start_run,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Run what is not finished, `jobs` at a time, each in the folder of its name, and show progress on stderr.

    On SIGTERM and SIGINT the runs are asked to write a checkpoint and stop; then the signal takes its usual course.

    Args:
        recipes: the runs by name.
        folder: where those folders are.
        jobs: runs at a time.
        lock: as `locked` gives it.
        update: given all results so far, by name, each time a run has finished.
        quiet: show nothing.
        start: starts a run.

    Returns:
        The results of the finished runs, and the reason, in one line, for each run that failed; both by name.
    """
    results = {name: numbers for name in recipes if (numbers := finished(folder / name)) is not None}
    waiting = [name for name in recipes if name not in results]
    running: dict[str, Process] = {}
    said: dict[str, int] = {}
    failed: dict[str, str] = {}
    board = _Board(len(recipes), len(waiting), quiet=quiet)
    with board.bar, interruptions() as asked:
        try:
            while (waiting or running) and not asked():
                while waiting and len(running) < jobs:
                    name = waiting.pop(0)
                    log = _log(folder / name)
                    said[name] = log.stat().st_size if log.exists() else 0
                    running[name] = start(recipes[name], folder / name, lock)
                for name, process in list(running.items()):
                    code = process.poll()
                    if code is None:
                        continue
                    del running[name]
                    numbers = finished(folder / name)
                    if code == 0 and numbers is not None:
                        results[name] = numbers
                        update(results)
                        board.ended(f"{name}: {_outcome(numbers)}")
                    else:
                        failed[name] = _reason(code, _log(folder / name), said[name])
                        board.ended(f"{name} failed: {failed[name]}")
                board.show(len(running))
                time.sleep(_POLL)
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()
    number = asked()
    if number:
        board.left -= sum(finished(folder / name) is not None for name in running)  # meanwhile
        board.message(f"interrupted with {board.left} runs left; the same command goes on")
        signal.raise_signal(number)
    return results, failed


class _Board:
    """Progress over a grid: a line for each run that ended, and on a terminal a bar."""

    def __init__(self, total: int, left: int, *, quiet: bool) -> None:
        console = Console(file=sys.stderr, quiet=quiet, soft_wrap=True, highlight=False)
        self.total, self.left, self._here, self._began = total, left, 0, time.monotonic()
        self.bar = Progress(
            TextColumn("runs"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[running]} running, {task.fields[time]} left"),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._task = self.bar.add_task("", total=total, completed=total - left, running=0, time="?")
        if left < total:
            self.message(f"{total - left} of {total} runs are finished already")

    def message(self, text: str) -> None:
        self.bar.console.print(text, markup=False)

    def ended(self, text: str) -> None:
        """A run ended, well or not."""
        self.left -= 1
        self._here += 1
        self.message(f"[{self.total - self.left}/{self.total}] {text}; {self._time()} left")

    def show(self, running: int) -> None:
        self.bar.update(self._task, completed=self.total - self.left, running=running, time=self._time())

    def _time(self) -> str:
        if not self._here:
            return "?"
        return str(timedelta(seconds=round((time.monotonic() - self._began) / self._here * self.left)))


def _outcome(numbers: dict[str, Any]) -> str:
    if "transfer_delta" in numbers:
        change = f"{numbers['transfer_delta']:+.2f} points"
    else:
        known = (one for one in ("perplexity", "rmse", "mse", "neighbours") if f"{one}_after" in numbers)
        change = ", ".join(f"{name} {numbers[f'{name}_after']:.4g}" for name in known) or "done"
    return f"{change} in {numbers['seconds']:.0f} s"


def _log(folder: Path) -> Path:
    return folder.with_name(folder.name + ".log")


def _reason(code: int, log: Path, earlier: int) -> str:
    """Why a run ended, by what its log has behind the `earlier` bytes of other attempts."""
    if code < 0:
        return f"ended by signal {-code}"
    text = log.read_bytes()[earlier:].decode(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("osmose: ")]
    return (own or lines or [f"exit code {code}, nothing said"])[-1].removeprefix("osmose: ")
