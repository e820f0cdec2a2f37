"""Checkpoints: whole or absent, verified, two kept."""

import errno
import os
import pickle
import resource
import signal
import subprocess
import sys

import pytest
import torch

from osmose.engine import checkpoint
from osmose.errors import UserError


def state(step):
    return {"step": step, "method": {"weight": torch.full((50,), float(step))}, "chosen": {"score": float("-inf")}}


def save(folder, *steps):
    return [checkpoint.save(folder, step, state(step)) for step in steps]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_is_loaded(tmp_path):
    (path,) = save(tmp_path, 5)
    loaded = checkpoint.load(path)
    assert torch.equal(loaded["method"]["weight"], torch.full((50,), 5.0))
    assert (loaded["step"], loaded["chosen"]) == (5, {"score": float("-inf")})


def test_the_two_newest_are_kept(tmp_path):
    save(tmp_path, 8, 9, 10, 1000)
    assert names(tmp_path) == ["step-000000010.ckpt", "step-000001000.ckpt"]


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint.newest(tmp_path, pytest.fail) is None


def truncated(data):
    return data[: len(data) // 2]


def flipped(data):
    return data[:-200] + bytes([data[-200] ^ 1]) + data[-199:]


def flipped_in_the_checksum(data):
    return data[:20] + (b"0" if data[20:21] != b"0" else b"1") + data[21:]


@pytest.mark.parametrize(
    "damage", [truncated, flipped, flipped_in_the_checksum, lambda data: b"", lambda data: data[30:]]
)
def test_of_a_damaged_newest_the_one_before_is_used_and_it_says_so(tmp_path, damage):
    _, newest = save(tmp_path, 1, 2)
    newest.write_bytes(damage(newest.read_bytes()))
    said = []
    assert checkpoint.newest(tmp_path, said.append)["step"] == 1
    (line,) = said
    assert line.startswith("checkpoint step-000000002.ckpt is damaged (")
    assert line.endswith("): using the one before")
    assert "\n" not in line


def test_all_damaged_is_none(tmp_path):
    for path in save(tmp_path, 1, 2):
        path.write_bytes(truncated(path.read_bytes()))
    said = []
    assert checkpoint.newest(tmp_path, said.append) is None
    assert [line.rpartition(": ")[2] for line in said] == ["using the one before", "starting from the beginning"]


def test_another_versions_format_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_FORMAT", 0)
    save(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"step-000000001\.ckpt was written by another version of Osmose: "):
        checkpoint.newest(tmp_path, pytest.fail)


def test_going_on_before_a_damaged_newest_leaves_two_whole_ones(tmp_path):
    """Step 33 was damaged, the run went on from 30: at step 40 the file of the abandoned step 33 must not count as kept."""
    save(tmp_path, 30, 33)
    (tmp_path / "step-000000033.ckpt").write_bytes(b"damaged")
    save(tmp_path, 31)
    assert names(tmp_path) == ["step-000000030.ckpt", "step-000000031.ckpt"]


def test_loading_never_executes_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    path = checkpoint.save(tmp_path, 1, {"step": 1, "evil": Evil()})
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.load(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_one_line_and_leaves_the_earlier_checkpoint_and_no_part(tmp_path, monkeypatch, call):
    save(tmp_path, 1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(UserError, match=r"^cannot write .*: No space left on device; free space there"):
        checkpoint.save(tmp_path, 2, state(2))
    monkeypatch.undo()
    assert names(tmp_path) == ["step-000000001.ckpt"]
    assert checkpoint.newest(tmp_path, pytest.fail)["step"] == 1


def test_a_write_that_stops_half_way_leaves_nothing(tmp_path):
    """The system itself stops the write, at a limit on the size of files."""
    save(tmp_path, 1)
    size = (tmp_path / "step-000000001.ckpt").stat().st_size
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
    try:
        with pytest.raises(UserError, match=r"^cannot write .*: File too large; "):
            checkpoint.save(tmp_path, 2, state(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert names(tmp_path) == ["step-000000001.ckpt"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^cannot write .*: File exists; "):
        checkpoint.save(tmp_path / "file", 1, state(1))


def test_a_kill_while_writing_leaves_the_earlier_checkpoint(tmp_path):
    script = """
import os, signal, sys
from pathlib import Path
import osmose.files
os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)
osmose.files.write_atomically(Path(sys.argv[1]), b"new" * 1000)
"""
    target = tmp_path / "step-000000001.ckpt"
    target.write_bytes(b"old")
    killed = subprocess.run([sys.executable, "-c", script, target], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"
