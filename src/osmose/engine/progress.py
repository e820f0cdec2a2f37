"""What people see while a run goes on: a live bar on a terminal, plain lines elsewhere. All of it goes to stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from osmose.engine.clock import Clock

_PLAIN_EVERY = 15.0
"""Seconds between two plain lines."""


class Progress:
    """Shows epoch, step, loss parts, samples a second and time left.

    Args:
        quiet: show nothing (the other processes of a run, tests).
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(file=sys.stderr, quiet=quiet, soft_wrap=True, highlight=False)
        self.numbers: dict[str, Any] = {}
        self._line: dict[str, Any] = {}
        self._bar: Bar | None = None

    def message(self, text: str) -> None:
        """One line that people should read."""
        self.console.print(text, markup=False)

    @contextmanager
    def running(self, clock: Clock) -> Iterator[None]:
        """Inside the block `advance` and `show` are drawn, for a run that starts at `clock`."""
        self._start, self._first, self._clock = time.monotonic(), clock.step, clock
        self._printed = self._start
        if self.quiet or not self.console.is_terminal:
            yield
            if self._line and not self.quiet:
                self._print(time.monotonic())
            return
        self._bar = Bar(
            TextColumn("epoch {task.fields[epoch]}/" + str(clock.epochs)),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("{task.fields[rate]:.0f} samples/s"),
            TimeRemainingColumn(),
            console=self.console,
        )
        with self._bar:
            self._task = self._bar.add_task(
                "", total=clock.total, completed=clock.step, epoch=clock.epoch + 1, numbers="", rate=0.0
            )
            yield
        self._bar = None

    def advance(self, step: int) -> None:
        """An optimiser step was taken."""
        if self._bar:
            epoch = min(step // self._clock.steps_per_epoch + 1, self._clock.epochs)
            self._bar.update(
                self._task, completed=step, epoch=epoch, numbers=_short(self.numbers), rate=self._rate(step)
            )

    def show(self, line: dict[str, Any]) -> None:
        """A line was added to the metrics."""
        self.numbers.update({key: value for key, value in line.items() if key not in ("step", "epoch")})
        now = time.monotonic()
        self._line = line
        evaluated = "loss" not in line
        if self.quiet or self._bar or (now - self._printed < _PLAIN_EVERY and not evaluated):
            return
        self._print(now)

    def _print(self, now: float) -> None:
        line, clock = self._line, self._clock
        self._printed, self._line = now, {}
        step = line["step"]
        rate = self._rate(step)
        left = (clock.total - step) * clock.batch_size / rate if rate else 0.0
        self.message(
            f"epoch {line['epoch']}/{clock.epochs} step {step}/{clock.total} {_short(self.numbers)} "
            f"{rate:.0f} samples/s {_duration(left)} left"
        )

    def _rate(self, step: int) -> float:
        seconds = time.monotonic() - self._start
        return (step - self._first) * self._clock.batch_size / seconds if seconds > 0 else 0.0


def _short(numbers: dict[str, Any]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in numbers.items() if isinstance(value, float))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
