"""SEED against its loss written out, its queue, and what it shares with the rest."""

import os
import signal

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from osmose import api
from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.engine.interrupt import Interrupted
from osmose.errors import UserError
from osmose.methods.queue import Queue
from osmose.methods.seed import Seed
from osmose.models import load_model
from osmose.models.backbones import Backbones
from osmose.signals import Frozen

X = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(0))
CLOCK = Clock(step=0, steps_per_epoch=2, epochs=4, batch_size=6)


def network(name, seed=0):
    return load_model(f"fresh:zoo:{name}", num_classes=0, channels=1, image_size=(12, 12), seed=seed)


def build(**settings):
    torch.manual_seed(1)
    method = Seed(Backbones([network("cnn-xs")]), {"teacher1": Frozen(network("vit-s", 1))}, **{"queue": 5, **settings})
    method.fit_to([(1, 12, 12)], torch.arange(6))
    return method


def test_the_loss_sample_by_sample():
    method = build(student_temperature=0.3, teacher_temperature=0.05)
    found = method(Batch(torch.arange(6), 0, X, None), CLOCK).loss
    ours = method.projection(method.network(X).features)
    theirs = method.teacher.network.eval()(X).features
    total = 0.0
    for mine, his in zip(ours, theirs, strict=True):
        mine, his = mine / mine.norm(), his / his.norm()
        others = [his, *method.queue.rows]
        p = torch.stack([his @ one for one in others]).div(0.05).softmax(0)
        q = torch.stack([mine @ one for one in others]).div(0.3).log_softmax(0)
        total = total - (p * q).sum() / 6
    torch.testing.assert_close(found, total, rtol=1e-5, atol=1e-6)
    parameters = [*method.network.parameters(), *method.projection.parameters()]
    used = [a for a in torch.autograd.grad(found, parameters, allow_unused=True) if a is not None]
    wanted = [b for b in torch.autograd.grad(total, parameters, allow_unused=True) if b is not None]
    for a, b in zip(used, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_the_oldest_rows_give_way_in_the_order_of_the_samples():
    queue = Queue(5, 2)
    features = torch.arange(14.0).view(7, 2)
    queue.see(torch.tensor([3, 1]), features[[3, 1]])
    queue.see(torch.tensor([2]), features[[2]])
    queue.after_step()
    assert torch.equal(queue.rows[:3], features[[1, 2, 3]])
    assert queue.numbers.tolist() == [1, 2, 3, -1, -1]
    queue.see(torch.tensor([6, 5, 4]), features[[6, 5, 4]])
    queue.after_step()
    assert torch.equal(queue.rows, features[[6, 2, 3, 4, 5]])
    queue.see(torch.arange(7), features)  # more than there is room for: the last of them
    queue.after_step()
    assert sorted(queue.rows[:, 0].tolist()) == features[2:, 0].tolist()
    assert torch.equal(queue.rows, features[queue.numbers])


def test_a_new_queue_has_unit_rows():
    assert torch.allclose(Queue(9, 4).rows.norm(dim=-1), torch.ones(9))
    assert torch.allclose(F.normalize(build().queue.rows, dim=-1), build().queue.rows)


def test_the_teachers_features_queue_up():
    method = build()
    method(Batch(torch.arange(6), 0, X, None), CLOCK)
    method.after_step(CLOCK)
    theirs = F.normalize(method.teacher.network.eval()(X).features, dim=-1)
    torch.testing.assert_close(method.queue.rows, theirs[1:], rtol=1e-4, atol=1e-5)


RUN = {
    "epochs": 2, "batch_size": 40, "threads": 1, "log_every": 3, "student": "fresh:zoo:cnn-s", "teacher": "fresh:zoo:vit-xs",
    "method": {"name": "seed", "queue": 100},
}  # fmt: skip


def left(folder):
    return (folder / "metrics.jsonl").read_bytes(), {
        key: value.numpy().tobytes() for key, value in load_file(folder / "student.safetensors").items()
    }


def test_a_stopped_run_goes_on_to_the_last_bit_and_a_store_changes_nothing(grey, after_step, tmp_path):
    recipe = {**RUN, "data": grey}
    whole = api.run(recipe, output=tmp_path / "whole")
    assert "probe_after" in whole.numbers
    after_step(8, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        api.run(recipe, output=tmp_path / "run")
    api.run(recipe, output=tmp_path / "run")
    assert left(tmp_path / "run") == left(tmp_path / "whole")
    for name in ("fills", "reads"):
        api.run({**recipe, "signals": {"store": str(tmp_path / "store")}}, output=tmp_path / name)
        assert left(tmp_path / name) == left(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"teacher": None}, "method seed needs a teacher: give --teacher"),
        ({"teacher": ["fresh:zoo:vit-xs", "fresh:zoo:cnn-xs"]}, "method seed has one student and one teacher"),
        ({"student": ["fresh:zoo:vit-xs", "fresh:zoo:cnn-xs"]}, "method seed has one student and one teacher"),
        ({"method": {"name": "seed", "queue": 0}}, "key 'method.queue' is 0"),
        ({"method": {"name": "seed", "teacher_temperature": 0.0}}, "key 'method.teacher_temperature' is 0.0"),
    ],
)
def test_mistakes_are_one_line(grey, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        api.run({**RUN, "data": grey, **changes}, output=tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
