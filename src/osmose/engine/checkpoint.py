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

from osmose.errors import UserError
from osmose.files import cannot_write, write_atomically

_MAGIC = b"osmose checkpoint "
_FORMAT = 2
"""What a state holds; another number is another version's."""
_KEPT = 2


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `state` as the checkpoint of optimiser step `step`, then delete all but it and the one before.

    Later ones, left where a run went on from an earlier checkpoint because the newest was damaged, are deleted too.

    Raises:
        UserError: when the folder cannot be written or the disk is full; earlier checkpoints are still there.
    """
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, **state}, buffer)
    body = buffer.getbuffer()
    path = path_of(folder, step)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    write_atomically(path, _MAGIC, hashlib.sha256(body).hexdigest().encode(), b"\n", body)
    there = sorted(folder.glob("step-*.ckpt"))
    end = there.index(path) + 1
    for other in (*there[: max(0, end - _KEPT)], *there[end:]):
        other.unlink()
    return path


def path_of(folder: Path, step: int) -> Path:
    """The file of the checkpoint of optimiser step `step`."""
    return folder / f"step-{step:09d}.ckpt"


def newest(folder: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest checkpoint in `folder` that is whole, or None.

    Args:
        folder: where `save` wrote.
        warn: told, in one line, of each damaged file that was passed over.
    """
    paths = sorted(folder.glob("step-*.ckpt"), reverse=True)
    for path in paths:
        try:
            return load(path)
        except ValueError as error:
            instead = "starting from the beginning" if path == paths[-1] else "using the one before"
            warn(f"checkpoint {path.name} is damaged ({error}): {instead}")
    return None


def load(path: Path) -> dict[str, Any]:
    """The state saved in `path`.

    Raises:
        ValueError: when the file is no checkpoint or its content does not have the recorded checksum.
        UserError: when another version of Osmose wrote it in another format.
    """
    head, _, body = path.read_bytes().partition(b"\n")
    found = re.fullmatch(_MAGIC + rb"([0-9a-f]{64})", head)
    if not found:
        raise ValueError("not a checkpoint")
    if hashlib.sha256(body).hexdigest() != found[1].decode():
        raise ValueError("truncated or altered")
    state: dict[str, Any] = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    if state.pop("format", None) != _FORMAT:
        raise UserError(
            f"{path} was written by another version of Osmose: finish the run with that one, or start anew with --fresh"
        )
    return state
