"""Runs with stored signals against the same runs live."""

import errno
import json
import multiprocessing
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from osmose import stores
from osmose.data import load_data
from osmose.data.batch import Batch
from osmose.engine.interrupt import Interrupted
from osmose.engine.method import Step
from osmose.engine.optimiser import Optimiser
from osmose.errors import UserError
from osmose.execution import execute as run
from osmose.methods import METHODS
from osmose.methods.distill import Distill
from osmose.models import load_model
from osmose.recipe import resolve
from osmose.signals import Frozen, Kept, Signals, records
from osmose.signals.encoding import Dense

PARTITION = {"target": "partition", "optimiser": {"lr": 0.5}}


@pytest.fixture
def asked(monkeypatch):
    """Counts the samples that frozen networks were shown in blocks."""
    seen = []
    in_blocks = Frozen._in_blocks

    def counted(frozen, x, fields):
        seen.append(len(x))
        return in_blocks(frozen, x, fields)

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


def test_a_full_disk_ends_the_keeping_and_not_the_run(execute, plain, left, monkeypatch, tmp_path, capsys):
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
    resolved = resolve(plain(**kept))
    run(resolved, tmp_path / "run")
    assert left(tmp_path / "run") == left(tmp_path / "live")
    said = capsys.readouterr().err
    assert said.count("No space left on device; the run goes on without") == 2  # once for each network
    with pytest.raises(UserError, match="where no more can be written: free space there"):
        stores.build(resolved, quiet=True)
    monkeypatch.setattr(records.os, "pwrite", pwrite)
    execute(tmp_path / "again", **kept)
    assert left(tmp_path / "again") == left(tmp_path / "live")


def test_the_size_is_told_and_refused_where_there_is_no_room(execute, monkeypatch, tmp_path):
    kept = {"signals": {"store": str(tmp_path / "store")}}
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=9000))
    with pytest.raises(
        UserError,
        match=r"signals of 2 view\(s\) from 1 network\(s\) in .*: 12\.7 KiB to be written, 8\.79 KiB are free",
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


def keep(store, telling, start):
    kept = Kept(
        "teacher1", store, {"a": 1}, {}, {"logits": Dense((3,), "float32")}, 40, 40, lambda said: telling.put(said)
    )
    start.wait()
    numbers = torch.arange(40)
    kept.keep(Batch(numbers, 0, numbers, None), "logits", torch.ones(40, 3))
    telling.put(None)


def test_processes_that_begin_a_store_at_once_do_not_disturb_each_other(tmp_path):
    context = multiprocessing.get_context("fork")
    telling, start = context.Queue(), context.Barrier(2)
    for trial in range(5):
        both = [context.Process(target=keep, args=(tmp_path / str(trial), telling, start)) for _ in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join()
    assert [telling.get(timeout=10) for _ in range(10)] == [None] * 10


def test_a_frozen_network_holds_no_batch_that_it_is_done_with():
    frozen = Frozen(load_model("fresh:zoo:cnn-xs", num_classes=4, channels=1, image_size=(12, 12)))
    frozen.expect(("logits", "features"))
    batch = Batch(torch.arange(4), 0, torch.rand(4, 1, 12, 12), None)
    frozen.signal(batch, "logits")
    assert frozen._batch is batch
    frozen.signal(batch, "features")
    assert frozen._batch is None
    assert frozen._held == {}


def test_parts_of_the_data_share_files_of_one_length(execute, asked, tmp_path):
    """A run on a fifth begins the files, one on all data goes on with them, and in its second epoch reads what it wrote."""
    kept = {"signals": {"store": str(tmp_path / "store")}, "view": {"count": 1}}
    execute(tmp_path / "few", **kept, data={"fraction": 0.2})
    sizes = {path: path.stat().st_size for path in (tmp_path / "store").rglob("*.view")}
    asked.clear()
    execute(tmp_path / "all", **kept, epochs=12)
    assert {path: path.stat().st_size for path in sizes} == sizes
    assert sum(asked) < 12 * 240 / 3


def test_another_module_with_the_same_weights_has_another_key(grey, tmp_path):
    folders = set()
    for activation in (nn.ReLU(), nn.Tanh(), nn.Tanh()):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Flatten(), nn.Linear(144, 8), activation, nn.Linear(8, 4))
        frozen = Frozen(load_model(body, classes=tuple("0123"), mean=(0.0,), std=(1.0,), channels=1))
        frozen.expect(("logits",))
        Signals(store=str(tmp_path)).attach(frozen, "teacher1", load_data(grey), {}, 40, print)
        folders.add((frozen.digest, frozen.kept.folder))
    assert len({digest for digest, _ in folders}) == 1
    assert len(folders) == 2


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


def test_what_cannot_be_kept_is_said_at_once(execute, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="which is a file: name a folder"):
        execute(tmp_path / "run", signals={"store": str(tmp_path / "file")})
    with pytest.raises(UserError, match=r"method.top_k is 3 and signals.top_k keeps 2 classes"):
        execute(tmp_path / "run", signals={"store": str(tmp_path / "store"), "top_k": 2}, method={"top_k": 3})


class Hints(Distill):
    """Distillation that also draws the student's features to the means of a layer of the teacher's."""

    def reads(self):
        return {"teacher1": ("logits", "states.layers.1")}

    def forward(self, batch, clock):
        step = super().forward(batch, clock)
        hint = self.teacher.signal(batch, "states.layers.1").mean((1, 2))
        return Step(step.loss + (self.student(batch.x).features.mean(1) - hint).square().mean(), step.parts)

    def __init__(self, student, frozen, *, optimiser=Optimiser(lr=0.5)):
        super().__init__(student, frozen, target="teacher", optimiser=optimiser)
        self.teacher = frozen["teacher1"]


def test_hard_reads_what_the_teacher_says_of_the_images_as_they_are(execute, left, asked, tmp_path):
    """In the augmentor's phase, of a part of the batch; in the student's phase everything is live."""
    method = {
        "name": "hard",
        "l_min": 0.74,
        "l_max": 0.75,
        "consecutive": 1,
        "augmentor_batch": 16,
        "optimiser": {"lr": 0.1},
    }
    run = {"method": method, "view": {"count": 1}, "epochs": 4}
    kept = {**run, "signals": {"store": str(tmp_path / "store"), "block": 16}}
    execute(tmp_path / "live", **run, signals={"block": 16})
    live = sum(asked)
    execute(tmp_path / "fills", **kept)
    asked.clear()
    execute(tmp_path / "reads", **kept)
    assert live > 0
    assert asked == []
    assert left(tmp_path / "reads") == left(tmp_path / "fills") == left(tmp_path / "live")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_states_of_layers_are_kept(monkeypatch, execute, left, asked, tmp_path, dtype):
    monkeypatch.setitem(METHODS, "hints", Hints)
    run = {"teacher": "fresh:zoo:vit-xs", "method": "hints"}
    kept = {**run, "signals": {"store": str(tmp_path / "store"), "dtype": dtype}}
    execute(tmp_path / "live", **run)
    execute(tmp_path / "fills", **kept)
    [row] = stores.listed(tmp_path / "store")
    assert row["fields"] == "logits-" + dtype + ", states.layers.1-" + dtype
    asked.clear()
    execute(tmp_path / "reads", **kept)
    assert asked == []
    assert left(tmp_path / "reads") == left(tmp_path / "fills")
    assert (left(tmp_path / "reads") == left(tmp_path / "live")) == (dtype == "float32")


def test_a_layer_that_is_not_there(monkeypatch, execute, tmp_path):
    monkeypatch.setitem(METHODS, "hints", Hints)
    with pytest.raises(UserError, match=r"unknown layer of 'fresh:zoo:mlp-xs': 'layers.1'"):
        execute(tmp_path / "run", teacher="fresh:zoo:mlp-xs", method="hints")
