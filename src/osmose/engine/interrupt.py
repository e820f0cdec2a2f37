"""SIGTERM and SIGINT as a request to stop at the next step."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """A run was asked to stop and has written a checkpoint.

    Attributes:
        step: the optimiser step of the checkpoint.
        signal: the signal's number.
    """

    def __init__(self, step: int, number: int) -> None:
        super().__init__(f"interrupted at step {step}; the same command goes on from there")
        self.step, self.signal = step, number


@contextmanager
def interruptions() -> Iterator[Callable[[], int]]:
    """Inside the block SIGTERM and the first SIGINT only make the given function return the signal's number, else 0.

    Outside Python's main thread, where signals cannot be caught, it always returns 0.
    """
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and asked:
            raise KeyboardInterrupt
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: asked[0] if asked else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
