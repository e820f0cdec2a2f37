"""One field of what one network said, on disk: a file a view, a record a sample, each with a checksum of its own."""

import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from osmose.signals.encoding import Encoding

_TRAILER = 8
_CHUNK = 65536
"""Records that are verified at a time."""
_MARK = np.frombuffer(b"osm1", np.uint8)


class Health(NamedTuple):
    """How many records of a file are whole, and how many are neither whole nor empty."""

    whole: int
    damaged: int


class Records:
    """Records of a field, addressed by sample number and view. What is damaged, half-written or absent counts as not there.

    A record is its bytes, their CRC-32 together with sample number and view, and a mark, so that a hole in a sparse file and
    a record in a wrong place are no records. Several processes may read and write at once: who writes a record
    writes the same bytes.

    Args:
        folder: where the files are; made when something is written.
        encoding: how numbers become bytes.
        samples: how many sample numbers there are.
    """

    def __init__(self, folder: Path, encoding: Encoding, samples: int) -> None:
        self.folder, self.encoding, self.samples = folder, encoding, samples
        self.record = encoding.size + _TRAILER
        self._mapped: tuple[int, np.ndarray] | None = None

    def read(self, view: int, numbers: Tensor) -> Tensor | None:
        """float32 [n, ...] of samples `numbers` (int64 [n]), or None where one of them is not there."""
        rows = numbers.numpy()
        raw = self._map(view, int(rows.max()) + 1)
        if raw is None:
            return None
        found = raw[rows]
        if not (found[:, -4:] == _MARK).all():
            return None
        payload = found[:, :-_TRAILER]
        if not np.array_equal(_checksums(payload, rows, view), found[:, -_TRAILER:-4].copy().view("<u4").ravel()):
            return None
        return self.encoding.decode(payload)

    def write(self, view: int, numbers: Tensor, payload: np.ndarray) -> None:
        """Keep what was said of samples `numbers`.

        Args:
            view: number of the view.
            numbers: int64 [n], on the CPU.
            payload: uint8 [n, bytes], as the encoding gives it.

        Raises:
            OSError: when the disk is full or cannot be written.
        """
        order = np.argsort(numbers.numpy())
        rows, payload = numbers.numpy()[order], payload[order]
        checksums = _checksums(payload, rows, view)[:, None].view(np.uint8)
        records = np.concatenate([payload, checksums, np.broadcast_to(_MARK, (len(rows), 4))], axis=1)
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path(view), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if os.fstat(descriptor).st_size < self.samples * self.record:
                os.ftruncate(descriptor, self.samples * self.record)
            for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
                _write_all(descriptor, records[run].tobytes(), int(rows[run[0]]) * self.record)
        finally:
            os.close(descriptor)

    def path(self, view: int) -> Path:
        """The file of a view."""
        return self.folder / f"{view:06d}.view"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_mapped": None}

    def _map(self, view: int, rows: int) -> np.ndarray | None:
        """uint8 [at least `rows`, record] of the view's file; None where it is not there, not readable or too short."""
        if self._mapped is None or self._mapped[0] != view or len(self._mapped[1]) < rows:
            try:
                flat = np.memmap(self.path(view), np.uint8, mode="r")
            except (OSError, ValueError):  # ValueError: an empty file
                return None
            whole = len(flat) // self.record
            self._mapped = view, flat[: whole * self.record].reshape(whole, self.record)
        found = self._mapped[1]
        return found if len(found) >= rows else None


def health(path: Path, size: int) -> Health:
    """Read every record of a view's file.

    Args:
        path: the file.
        size: bytes of a sample, without checksum and mark.
    """
    record, view = size + _TRAILER, int(path.stem)
    count = path.stat().st_size // record
    whole = damaged = 0
    for start in range(0, count, _CHUNK):
        raw = np.fromfile(path, np.uint8, min(_CHUNK, count - start) * record, offset=start * record).reshape(
            -1, record
        )
        filled = np.flatnonzero(raw.any(axis=1))
        found = raw[filled]
        sums = found[:, -_TRAILER:-4].copy().view("<u4").ravel()
        good = (_checksums(found[:, :-_TRAILER], filled + start, view) == sums) & (found[:, -4:] == _MARK).all(axis=1)
        whole, damaged = whole + int(good.sum()), damaged + int((~good).sum())
    return Health(whole, damaged)


def _checksums(payload: np.ndarray, numbers: np.ndarray, view: int) -> np.ndarray:
    """uint32 [n] over each record's bytes, its sample's number and its view."""
    starts = np.stack([numbers, np.full_like(numbers, view)], axis=1).astype("<i8").tobytes()
    data, size = payload.tobytes(), payload.shape[1]
    sums = [
        zlib.crc32(data[row * size : (row + 1) * size], zlib.crc32(starts[row * 16 : row * 16 + 16]))
        for row in range(len(numbers))
    ]
    return np.array(sums, "<u4")


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
