"""What is on disk of what one network says, and its exact key."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from osmose.data.batch import Batch
from osmose.errors import UserError
from osmose.files import folder_name, write_atomically
from osmose.signals.encoding import Encoding
from osmose.signals.records import Records

ABOUT = "about.json"


class Reader:
    """The reading side, which loader workers have.

    Args:
        fields: the records of each field.
    """

    def __init__(self, fields: Mapping[str, Records]) -> None:
        self.fields = fields

    def read(self, view: int, numbers: Tensor) -> dict[str, Tensor]:
        """Those fields, float32 [n, ...], of which all of the samples `numbers` (int64 [n]) are there."""
        found = {name: records.read(view, numbers) for name, records in self.fields.items()}
        return {name: values for name, values in found.items() if values is not None}


class Kept:
    """The records of one network for one key: everything that its answers depend on to the last bit.

    Args:
        role: whose answers they are in this run, for example "teacher1".
        store: the folder with all stores.
        key: plain values that tell these answers from others.
        about: what people should know beside the key.
        fields: the records' encodings, by field.
        samples: how many sample numbers the whole training part has, whatever share of it a run uses.
        count: how many samples the run uses.
        tell: called with a line for people, once, when records cannot be written.
    """

    def __init__(
        self,
        role: str,
        store: Path,
        key: Mapping[str, Any],
        about: Mapping[str, Any],
        fields: Mapping[str, Encoding],
        samples: int,
        count: int,
        tell: Callable[[str], None],
    ) -> None:
        self.role, self.count, self.tell = role, count, tell
        self.folder = store / folder_name(key)
        self.about = {"key": dict(key), **about}
        self.fields = {
            name: Records(self.folder / f"{name}-{encoding.name}-{encoding.size}", encoding, samples)
            for name, encoding in fields.items()
        }
        self.writes = True
        self.reader = Reader(self.fields)

    def find(self, batch: Batch, field: str) -> Tensor | None:
        """What is on disk of a batch, where all of it is."""
        assert batch.view is not None
        values = self.fields[field].read(batch.view, batch.index.cpu())
        return None if values is None else values.to(batch.x.device)

    def keep(self, batch: Batch, field: str, values: Tensor) -> Tensor:
        """Write what the network said of a batch, and give it back as it will be read."""
        records = self.fields[field]
        assert batch.view is not None
        payload = records.encoding.encode(values.cpu(), None if batch.y is None else batch.y.cpu())
        if self.writes:
            try:
                self.begin()
                records.write(batch.view, batch.index.cpu(), payload)
            except (OSError, UserError) as error:
                self.writes = False
                reason = error.strerror if isinstance(error, OSError) else error
                self.tell(f"signals are no longer kept in {self.folder}: {reason}; the run goes on without")
        return records.encoding.decode(payload).to(values.device)

    def begin(self) -> None:
        """Make the folder, with a file that says whose signals these are."""
        if not (self.folder / ABOUT).exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / ABOUT, json.dumps(self.about, indent=1).encode())

    def need(self, views: int) -> int:
        """Bytes that so many views of the run's samples take, less what the files that are there take."""
        need = 0
        for records in self.fields.values():
            size = self.count * records.record
            for view in range(views):
                there = 0
                with suppress(OSError):
                    there = records.path(view).stat().st_blocks * 512
                need += max(0, size - there)
        return need


def check_space(kept: Sequence[Kept], views: int) -> str:
    """What the signals of a run take on disk, in words.

    Args:
        kept: the records of all its networks, in one store.
        views: how many views it shows of each sample.

    Raises:
        UserError: when more will be written than is free, or nothing can be.
    """
    store = kept[0].folder.parent
    need = sum(one.need(views) for one in kept)
    if store.exists() and not store.is_dir():
        raise UserError(f"signals.store is '{store}', which is a file: name a folder")
    there = next(folder for folder in (store.absolute(), *store.absolute().parents) if folder.is_dir())
    if need and not os.access(there, os.W_OK):
        raise UserError(f"signals.store is '{store}', and {there} cannot be written: choose another place")
    free = shutil.disk_usage(there).free
    text = f"signals of {views} view(s) from {len(kept)} network(s) in {store}: {_size(need)} to be written"
    if need > free:
        raise UserError(
            f"{text}, {_size(free)} are free: set view.count, signals.dtype float16 or signals.top_k, or choose another place"
        )
    return text


def _size(count: float) -> str:
    unit = "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if count >= 1000:
            count, unit = count / 1024, larger
    return f"{count:.3g} {unit}"
