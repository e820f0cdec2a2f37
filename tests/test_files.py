"""A folder is written whole or not at all, and what is not ours stays."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from osmose.files import whole_folder


def write(path, text="new"):
    with whole_folder(path) as part:
        (part / "weights").write_text(text)


def read(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def dead():
    """The number of a process that is over."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_neighbours_of_like_names_stay(tmp_path):
    for name in ("model", "model.old", "model.part", f"model.{os.getppid()}.part", f"my.model.{dead()}.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    write(tmp_path / "model")
    assert read(tmp_path / "model") == {"weights": "new"}
    others = [path for path in tmp_path.iterdir() if path.name != "model"]
    assert [read(path) for path in others] == [{"mine": "mine"}] * 4


def test_what_a_killed_process_moved_away_is_back_and_what_it_wrote_is_gone(tmp_path):
    """Killed between its two renames, and then in the next writing: the first text is never lost."""
    old, part = (tmp_path / f"model.{dead()}.{end}" for end in ("old", "part"))
    for folder, text in ((old, "before"), (part, "half")):
        folder.mkdir()
        (folder / "weights").write_text(text)
    with pytest.raises(OSError, match="No such file"), whole_folder(tmp_path / "model"):
        (tmp_path / "missing").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert read(tmp_path / "model") == {"weights": "before"}
    write(tmp_path / "model")
    assert read(tmp_path / "model") == {"weights": "new"}


def test_a_rename_that_fails_is_undone(tmp_path, monkeypatch):
    write(tmp_path / "model", "before")
    rename = Path.rename

    def fails(path, target):
        if path.name.endswith(".part"):
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="no"):
        write(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert read(tmp_path / "model") == {"weights": "before"}
