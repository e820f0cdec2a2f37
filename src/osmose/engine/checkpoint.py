"""Checkpoints: one checksummed file each, written atomically, verified when read; the two newest are kept.

A file is one line of text, `osmose checkpoint <sha256 of the rest>`, and then what `torch.save` writes. It is read with
`weights_only=True`: a checkpoint never executes code.
"""

import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from osmose.files import write_atomically

_MAGIC = b"osmose checkpoint "
_KEPT = 2


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `state` as the checkpoint of optimiser step `step`, then delete all but it and the one before.

    Later ones, left where a run went on from an earlier checkpoint because the newest was damaged, are deleted too.

    Raises:
        UserError: when the folder cannot be written or the disk is full; earlier checkpoints are still there.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    body = buffer.getbuffer()
    path = folder / f"step-{step:09d}.ckpt"
    write_atomically(path, _MAGIC, hashlib.sha256(body).hexdigest().encode(), b"\n", body)
    there = sorted(folder.glob("step-*.ckpt"))
    end = there.index(path) + 1
    for other in (*there[: max(0, end - _KEPT)], *there[end:]):
        other.unlink()
    return path


def newest(folder: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest checkpoint in `folder` that is whole, or None.

    Args:
        folder: where `save` wrote.
        warn: told, in one line, of each damaged file that was passed over.
    """
    for path in _newest_first(folder):
        try:
            return load(path)
        except ValueError as error:
            warn(f"checkpoint {path.name} is damaged ({error}): using the one before")
    return None


def load(path: Path) -> dict[str, Any]:
    """The state saved in `path`.

    Raises:
        ValueError: when the file is no checkpoint or its content does not have the recorded checksum.
    """
    head, _, body = path.read_bytes().partition(b"\n")
    found = re.fullmatch(_MAGIC + rb"([0-9a-f]{64})", head)
    if not found:
        raise ValueError("not a checkpoint")
    if hashlib.sha256(body).hexdigest() != found[1].decode():
        raise ValueError("truncated or altered")
    state: dict[str, Any] = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    return state


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.ckpt"), reverse=True)
