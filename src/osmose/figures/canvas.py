"""A matplotlib figure that needs no display, and is written whole or not at all."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from osmose.files import write_atomically


@contextmanager
def canvas(path: Path, *, rows: int = 1, columns: int = 1, size: tuple[float, float]) -> Iterator[Any]:
    """Inside the block a figure with rows x columns axes is drawn on; then it is written, in the format of the path's suffix.

    Args:
        path: the file, .svg or .png.
        rows, columns: of axes.
        size: inches across and down.

    Yields:
        The axes, a numpy array [rows, columns].

    Raises:
        UserError: when the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    yield figure.subplots(rows, columns, squeeze=False)
    buffer = io.BytesIO()
    figure.savefig(
        buffer,
        format=path.suffix.removeprefix("."),
        dpi=150,
        metadata={"Date": None} if path.suffix == ".svg" else None,
    )
    write_atomically(path, buffer.getbuffer())
