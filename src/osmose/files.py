"""Files and folders that are either whole or absent."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path
from typing import Any

from osmose.errors import UserError


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Write the parts, one after another, so that `path` holds either all of them or what it held before.

    Raises:
        UserError: when the file cannot be written.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # another process may write the same file
    try:
        with part.open("wb") as file:
            for data in parts:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # on a read-only file system even this fails
            part.unlink()
        raise cannot_write(path, error) from error


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Inside the block files are written into the folder that it gives; then that takes the place of `path`, whole or not at all.

    Raises:
        OSError: when it cannot be written; what was at `path` is still there.
    """
    _tidy(path)
    part, old = (path.with_name(f"{path.name}.{os.getpid()}.{end}") for end in ("part", "old"))
    part.mkdir(parents=True)
    try:
        yield part
        for file in part.iterdir():
            sync_file(file)
        if path.exists():
            path.rename(old)
        part.rename(path)
        sync_folder(path.parent)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        for rest in (part, old):
            shutil.rmtree(rest, ignore_errors=True)


def _tidy(path: Path) -> None:
    """Put back what a process that was killed had moved away from `path`, and remove what it was writing."""
    marked = re.compile(rf"{re.escape(path.name)}\.(\d+)\.(part|old)")
    for left in [*path.parent.glob("*.[0-9]*.part"), *path.parent.glob("*.[0-9]*.old")]:
        found = marked.fullmatch(left.name)
        if found and left.is_dir() and not _runs(int(found[1])):
            if found[2] == "old" and not path.exists():
                left.rename(path)
            else:
                shutil.rmtree(left, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def folder_name(key: Mapping[str, Any]) -> str:
    """The name of the folder with the signals under a key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def sync_folder(folder: Path) -> None:
    """Wait until the folder's entries are on the disk, so that a power cut does not undo a rename."""
    sync_file(folder)


def sync_file(path: Path) -> None:
    """Wait until what was written to a file is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_write(path: Path, error: OSError) -> UserError:
    """The error for a file or folder that cannot be written, with the reason the system gives."""
    cure = (
        "free space there, or choose another place"
        if error.errno in (ENOSPC, EDQUOT, EFBIG)
        else "choose another place"
    )
    return UserError(f"cannot write {path}: {error.strerror}; {cure}")
