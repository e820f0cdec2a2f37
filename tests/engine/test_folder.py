"""The run's folder: its lock, its recipe, its metrics."""

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from osmose.engine.folder import RunFolder
from osmose.errors import UserError

RECIPE = {"epochs": 3, "method": {"name": "distill", "optimiser": {"lr": 1e-5, "clip": None}}, "scale": [0.25, 1.0]}


def begun(path, recipe=RECIPE, **options):
    with RunFolder(path, recipe, **options) as folder:
        folder.begin()


def test_the_same_recipe_comes_back(tmp_path):
    begun(tmp_path / "run")
    with RunFolder(tmp_path / "run", RECIPE) as folder:
        assert folder.result() is None
        folder.finish({"accuracy": 1.5})
        assert folder.result() == {"accuracy": 1.5}


def test_another_recipe_is_one_line_with_every_difference(tmp_path):
    begun(tmp_path / "run")
    other = {**RECIPE, "epochs": 4, "method": {"name": "distill", "optimiser": {"lr": 1e-4, "clip": None}}}
    with pytest.raises(UserError) as error, RunFolder(tmp_path / "run", other):
        pass
    assert str(error.value) == (
        f"{tmp_path / 'run'} holds a run of another recipe (epochs: 3 there, 4 now; method.optimiser.lr: 1e-05 there, "
        "0.0001 now): give another --output, or --fresh to discard it"
    )


def test_keys_that_came_or_went_are_differences(tmp_path):
    begun(tmp_path / "run", {"a": 1, "b": 2})
    with (
        pytest.raises(UserError, match=r"\(b: 2 there, None now; c: None there, 3 now\)"),
        RunFolder(tmp_path / "run", {"a": 1, "c": 3}),
    ):
        pass


def test_fresh_discards_a_run_only_when_the_new_one_begins(tmp_path):
    path = tmp_path / "run"
    begun(path)
    for name in ("frozen", "checkpoints"):
        (path / name).mkdir()
    for name in ("metrics.jsonl", "result.json", "student.safetensors", "checkpoints/step-1.ckpt", "frozen/initial.st"):
        (path / name).write_text("{}")
    (path / "notes.txt").write_text("mine")
    other = {**RECIPE, "epochs": 9}
    with RunFolder(path, other, fresh=True) as folder:
        assert folder.result() is None
        # a mistake is found before the run begins
    assert (path / "result.json").exists()
    with RunFolder(path, other, fresh=True) as folder:
        folder.begin()
    assert sorted(p.name for p in path.iterdir()) == ["lock", "notes.txt", "recipe.yaml"]
    begun(path, other)


def test_a_folder_that_did_not_begin_is_gone_again(tmp_path):
    with pytest.raises(RuntimeError), RunFolder(tmp_path / "run", RECIPE):
        raise RuntimeError
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(RuntimeError), RunFolder(tmp_path / "mine", RECIPE):
        raise RuntimeError
    assert (tmp_path / "mine").exists()


HOLD = """
import os, sys, time
from pathlib import Path
from osmose.engine.folder import RunFolder
with RunFolder(Path(sys.argv[1]), {"a": 1}) as folder:
    folder.begin()
    child = os.fork()  # as a loader process is begun
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


def hold(path):
    """A process that has the folder, and the number of its child."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def test_a_second_process_is_refused_until_the_first_is_gone_though_its_children_live_on(tmp_path):
    process, child = hold(tmp_path / "run")
    try:
        with (
            pytest.raises(
                UserError, match=r"^.*run is in use by another process: wait for it, or give another --output$"
            ),
            RunFolder(tmp_path / "run", {"a": 1}),
        ):
            pass
        assert (tmp_path / "run" / "recipe.yaml").exists()
        process.kill()
        process.wait()
        with RunFolder(tmp_path / "run", {"a": 1}):
            pass
        os.kill(child, 0)  # it does live on
    finally:
        process.kill()
        os.kill(child, signal.SIGKILL)
        process.communicate()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "run", Path("/proc/osmose-run")):
        with (
            pytest.raises(UserError, match=rf"^cannot write {place}: [A-Z][a-z ]+; choose another place"),
            RunFolder(place, {}),
        ):
            pass


def test_metrics_are_cut_back_to_a_checkpoint(tmp_path):
    with RunFolder(tmp_path / "run", RECIPE) as folder:
        folder.begin()
        assert folder.size() == 0
        folder.write({"step": 1})
        size = folder.size()
        folder.write({"step": 2})
        folder.rewind(size)
        folder.write({"step": 3})
        assert folder.metrics.read_text() == '{"step": 1}\n{"step": 3}\n'
        folder.rewind(0)
        assert folder.size() == 0
        with pytest.raises(UserError, match=r"metrics\.jsonl is shorter than when the checkpoint was written: "):
            folder.rewind(size)


def test_only_the_owner_writes(tmp_path):
    with RunFolder(tmp_path / "run", RECIPE, owner=False) as folder:
        folder.begin()
        folder.write({"step": 1})
        folder.rewind(0)
    assert not (tmp_path / "run").exists()


def test_a_full_disk_while_writing_metrics_is_one_line(tmp_path, monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    with RunFolder(tmp_path / "run", RECIPE) as folder:
        folder.begin()
        monkeypatch.setattr(Path, "open", lambda *_: Full())
        with pytest.raises(UserError, match=r"^cannot write .*metrics\.jsonl: No space left on device; "):
            folder.write({"step": 1})
        monkeypatch.undo()
