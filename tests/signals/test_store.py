"""Runs with stored signals against the same runs live."""

import errno
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from osmose.engine.interrupt import Interrupted
from osmose.errors import UserError
from osmose.signals import Frozen, records

PARTITION = {"target": "partition", "optimiser": {"lr": 0.5}}


@pytest.fixture
def asked(monkeypatch):
    """Counts the samples that frozen networks were shown in blocks."""
    seen = []
    in_blocks = Frozen._in_blocks

    def counted(frozen, x):
        seen.append(len(x))
        return in_blocks(frozen, x)

    monkeypatch.setattr(Frozen, "_in_blocks", counted)
    return seen


@pytest.mark.parametrize("student", ["fresh:zoo:cnn-xs", "fresh:zoo:vit-xs", "fresh:zoo:mlp-xs"])
@pytest.mark.parametrize(
    "method", [PARTITION, {"name": "contrastive", "target": "partition", "optimiser": {"lr": 0.5}}]
)
def test_a_run_from_a_store_is_a_live_run_to_the_last_bit(execute, left, asked, tmp_path, student, method):
    live = {"student": student, "method": method}
    kept = {**live, "signals": {"store": str(tmp_path / "store")}}
    execute(tmp_path / "live", **live)
    shown = sum(asked)
    asked.clear()
    execute(tmp_path / "fills", **kept)
    assert sum(asked) == shown
    asked.clear()
    for workers in (0, 2):
        execute(tmp_path / f"reads-{workers}", **kept, workers=workers)
        assert left(tmp_path / f"reads-{workers}") == left(tmp_path / "fills") == left(tmp_path / "live")
    assert asked == []


def test_readers_with_other_batch_sizes_share_what_is_computed_in_blocks(execute, left, asked, tmp_path):
    """Blocks of 16 in batches of 40 and 27: the last one of a batch is padded."""
    kept = {"method": PARTITION, "signals": {"store": str(tmp_path / "store"), "block": 16}, "view": {"count": 1}}
    execute(tmp_path / "fills", **kept, epochs=12)  # by then every sample has been dealt
    asked.clear()
    execute(tmp_path / "reads", **kept, epochs=3, batch_size=27)
    assert asked == []
    execute(tmp_path / "live", method=PARTITION, signals={"block": 16}, view={"count": 1}, epochs=3, batch_size=27)
    assert left(tmp_path / "reads") == left(tmp_path / "live")


@pytest.mark.parametrize("signals", [{"dtype": "float16"}, {"top_k": 2}])
def test_rounded_signals_are_the_same_whether_computed_or_read(execute, left, asked, tmp_path, signals):
    kept = {"method": PARTITION, "signals": {"store": str(tmp_path / "store"), **signals}}
    execute(tmp_path / "fills", **kept)
    asked.clear()
    execute(tmp_path / "reads", **kept)
    assert asked == []
    assert left(tmp_path / "reads") == left(tmp_path / "fills")
    execute(tmp_path / "live", method=PARTITION)
    assert left(tmp_path / "reads") != left(tmp_path / "live")


@pytest.mark.parametrize(
    "changes",
    [
        {"teacher": "fresh:zoo:vit-xs"}, {"view": {"seed": 1}}, {"view": {"flip": 0.1}}, {"frozen_precision": "bf16-mixed"},
        {"signals": {"block": 20}}, {"batch_size": 20}, {"data": {"labelled": False}, "method": {"target": "teacher"}},
    ],
)  # fmt: skip
def test_another_key_finds_nothing(execute, asked, tmp_path, changes):
    kept = {"signals": {"store": str(tmp_path / "store")}}
    execute(tmp_path / "fills", **kept)
    shown = sum(asked)
    execute(tmp_path / "reads", **{**kept, **changes, "signals": {**kept["signals"], **changes.get("signals", {})}})
    assert sum(asked) > 1.9 * shown


def test_seeds_methods_and_students_share_a_teachers_signals(execute, asked, tmp_path):
    execute(tmp_path / "teacher", student="fresh:zoo:mlp-xs", teacher=None, method={"name": "supervised"}, epochs=10)
    kept = {
        "teacher": f"file:{tmp_path / 'teacher'}",
        "signals": {"store": str(tmp_path / "store")},
        "view": {"count": 1},
    }
    execute(tmp_path / "fills", **kept, epochs=12)  # by then every sample has been dealt
    asked.clear()
    execute(tmp_path / "reads", **kept, seed=3, student="fresh:zoo:vit-xs", method={"kl_weight": 0.5})
    assert asked == []


def test_damaged_records_are_computed_again(execute, left, asked, tmp_path):
    kept = {"method": PARTITION, "signals": {"store": str(tmp_path / "store")}}
    execute(tmp_path / "fills", **kept)
    files = sorted((tmp_path / "store").rglob("*.view"))
    assert len(files) == 4  # two networks, two views
    damaged = bytearray(files[0].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    files[0].write_bytes(damaged)
    os.truncate(files[1], 100)
    files[2].unlink()
    files[3].write_bytes(os.urandom(len(damaged)))
    asked.clear()
    execute(tmp_path / "reads", **kept)
    assert left(tmp_path / "reads") == left(tmp_path / "fills")
    assert sum(asked) >= 40
    asked.clear()
    execute(tmp_path / "again", **kept)
    assert asked == []


def test_a_run_that_is_stopped_while_it_writes_goes_on(execute, left, after_step, tmp_path):
    kept = {"method": PARTITION, "signals": {"store": str(tmp_path / "store")}}
    execute(tmp_path / "live", method=PARTITION)
    after_step(8, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        execute(tmp_path / "run", **kept)
    execute(tmp_path / "run", **kept)
    assert left(tmp_path / "run") == left(tmp_path / "live")


def test_a_full_disk_ends_the_keeping_and_not_the_run(execute, left, monkeypatch, tmp_path, capsys):
    kept = {"method": PARTITION, "signals": {"store": str(tmp_path / "store")}}
    execute(tmp_path / "live", method=PARTITION)
    written = []

    def full(descriptor, data, offset):
        written.append(data)
        if len(written) > 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data[: len(data) // 2] if len(written) == 100 else data, offset)

    pwrite = os.pwrite
    monkeypatch.setattr(records.os, "pwrite", full)
    execute(tmp_path / "run", **kept)
    assert left(tmp_path / "run") == left(tmp_path / "live")
    monkeypatch.setattr(records.os, "pwrite", pwrite)
    execute(tmp_path / "again", **kept)
    assert left(tmp_path / "again") == left(tmp_path / "live")


def test_the_size_is_told_and_refused_where_there_is_no_room(execute, monkeypatch, tmp_path):
    kept = {"signals": {"store": str(tmp_path / "store")}}
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=9000))
    with pytest.raises(
        UserError,
        match=r"signals of 2 view\(s\) from 1 network\(s\) in .*: 14\.1 KiB to be written, 8\.79 KiB are free",
    ):
        execute(tmp_path / "run", **kept)


def test_mixed_images_are_not_kept(execute, tmp_path):
    execute(tmp_path / "run", signals={"store": str(tmp_path / "store")}, blend="mixup")
    assert not list((tmp_path / "store").rglob("*.view"))


def test_the_store_says_whose_signals_it_has(execute, tmp_path):
    execute(tmp_path / "run", signals={"store": str(tmp_path / "store")})
    (about,) = (tmp_path / "store").glob("*/about.json")
    content = json.loads(Path(about).read_text())
    assert content["model"] == "fresh:zoo:cnn-xs"
    assert content["key"]["block"] == 40


@pytest.mark.parametrize(
    ("signals", "says"),
    [
        ({"top_k": 4}, "key 'signals.top_k' is 4: set it to below the number of classes, 4"),
        ({"block": 0}, "key 'signals.block' is 0: set it to at least 1, or null"),
        ({"dtype": "int8"}, "key 'signals.dtype' is 'int8'"),
    ],
)
def test_bad_settings(execute, tmp_path, signals, says):
    with pytest.raises(UserError, match=says):
        execute(tmp_path / "run", signals={"store": str(tmp_path / "store"), **signals})
