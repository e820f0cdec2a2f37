"""A text's training blocks on disk: cut once for all runs, and mapped into memory."""

import fcntl
import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from osmose.data.inputs import MemoryInputs
from osmose.data.split import Split
from osmose.errors import UserError
from osmose.files import cannot_write, folder_name, whole_folder

_ABOUT, _INPUTS, _LABELS = "about.json", "blocks.i32", "labels.i32"


def kept_blocks(
    cache: Path, key: Mapping[str, Any], length: int, parts: Iterable[Split], more: Mapping[str, Any]
) -> tuple[Split, dict[str, Any]]:
    """The blocks under a key, cut and written where they are not there; and their "fingerprint", with what else is known of them.

    Args:
        cache: the folder with all such blocks; 12 bytes a token are written.
        key: plain values that everything in the blocks depends on.
        length: tokens of a block.
        parts: cuts them, some at a time; gone through only where they are not there.
        more: plain values that are known once all are cut, to be kept beside them.

    Raises:
        UserError: when they cannot be written.
    """
    folder = cache / f"text-{folder_name(key)}"
    about = _about(folder, length)
    try:
        if about is None:
            cache.mkdir(parents=True, exist_ok=True)
            with _alone(folder.with_suffix(".lock")):  # of several processes one cuts, and the others wait for it
                if _about(folder, length) is None:
                    _write(folder, key, parts, more)
            about = _about(folder, length)
        if about is not None:
            return _read(folder, about["blocks"], length), about
    except OSError as error:
        raise cannot_write(folder, error) from error
    raise UserError(f"{folder} does not hold what was written there: remove it, or name another data.cache")


def fingerprint(blocks: Split) -> str:
    """Hash of all blocks and labels."""
    assert blocks.labels is not None
    content = hashlib.sha256(blocks.inputs.digest())
    content.update(blocks.labels.numpy().data)
    return content.hexdigest()


def _about(folder: Path, length: int) -> dict[str, Any] | None:
    """What is said of the blocks in a folder; None where they are not whole."""
    try:
        about: dict[str, Any] = json.loads((folder / _ABOUT).read_text())
        sizes = [(folder / name).stat().st_size for name in (_INPUTS, _LABELS)]
        return about if sizes == [8 * length * about["blocks"], 4 * length * about["blocks"]] else None
    except (OSError, ValueError, KeyError):
        return None


def _read(folder: Path, blocks: int, length: int) -> Split:
    def mapped(name: str, *shape: int) -> Tensor:
        if not blocks:  # an empty file cannot be mapped
            return torch.zeros(0, *shape, dtype=torch.int32)
        values = np.memmap(folder / name, dtype=np.int32, mode="r", shape=(blocks, *shape))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # nor is it written to
            return torch.from_numpy(values)

    return Split(MemoryInputs(mapped(_INPUTS, 2, length)), mapped(_LABELS, length), torch.arange(blocks))


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Inside the block no other process is in it; one that dies leaves it."""
    with lock.open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def _write(folder: Path, key: Mapping[str, Any], parts: Iterable[Split], more: Mapping[str, Any]) -> None:
    with whole_folder(folder) as part:
        blocks, length = 0, 0
        with (part / _INPUTS).open("wb") as inputs, (part / _LABELS).open("wb") as labels:
            for some in parts:
                assert some.labels is not None
                inputs.write(some.inputs.read(torch.arange(len(some))).numpy().data)
                labels.write(some.labels.numpy().data)
                blocks, length = blocks + len(some), some.labels.shape[1]
        found = fingerprint(_read(part, blocks, length))
        about = {"key": dict(key), "blocks": blocks, "fingerprint": found, **more}
        (part / _ABOUT).write_text(json.dumps(about, indent=1))
