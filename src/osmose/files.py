"""Files that are either whole or absent."""

import os
from contextlib import suppress
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path

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
