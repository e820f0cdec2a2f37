"""DisCo against its loss written out, and what a stopped run keeps."""

import copy
import os
import signal

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from osmose import api
from osmose.data.batch import Batch
from osmose.data.crops import TwoCrops
from osmose.engine.clock import Clock
from osmose.engine.interrupt import Interrupted
from osmose.errors import UserError
from osmose.methods.disco import Disco
from osmose.models import load_model
from osmose.models.backbones import Backbones
from osmose.signals import Frozen

PIXELS = torch.randint(0, 256, (6, 1, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CLOCK = Clock(step=0, steps_per_epoch=2, epochs=4, batch_size=6)


def network(name, seed=0):
    return load_model(f"fresh:zoo:{name}", num_classes=0, channels=1, image_size=(12, 12), seed=seed)


def build(**settings):
    torch.manual_seed(1)
    frozen = {"teacher1": Frozen(network("vit-s", 1))}
    method = Disco(Backbones([network("cnn-xs")]), frozen, **{"queue": 5, "hidden": 7, **settings})
    method.fit_to([(1, 12, 12)], torch.arange(6))
    return method.train()


def batch():
    crops = TwoCrops()(PIXELS, torch.arange(6), 0)
    assert len(crops) == 1
    return Batch(torch.arange(6), 0, crops[0][0], None, crops=crops)


def test_the_loss_sample_by_sample():
    method = build(temperature=0.3, contrast_weight=0.7)
    learner = method.learner
    for parameter in learner.twin.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    learner.queue.numbers.copy_(torch.tensor([9, 4, 8, 0, 4]))  # of samples 0 and 4 themselves some are no others
    found = method(batch(), CLOCK)
    first, second = batch().crops[0]
    total = 0.0
    for number in range(6):
        pair = [crop[number : number + 1] for crop in (first, second)]
        z = [F.normalize(learner.projection(learner.network(x).features)[0], dim=0) for x in pair]
        t = [F.normalize(method.teacher.network(x).features[0], dim=0).detach() for x in pair]
        key = F.normalize(learner.twin_projection(learner.twin(pair[1]).features)[0], dim=0).detach()
        kept = sum(((a - b) ** 2).sum() for a, b in zip(z, t, strict=True))
        others = learner.queue.rows[learner.queue.numbers != number]
        scores = torch.stack([z[0] @ one / 0.3 for one in (key, *others)])
        total = total + (kept - 0.7 * scores.log_softmax(0)[0]) / 6
    torch.testing.assert_close(found.loss, total, rtol=1e-5, atol=1e-6)
    parameters = list(learner.projection.parameters())
    for a, b in zip(torch.autograd.grad(found.loss, parameters), torch.autograd.grad(total, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_the_twin_follows_and_its_embeddings_queue_up():
    method = build(momentum=0.9)
    learner = method.learner
    for parameter in learner.trained():
        parameter.data += 1.0
    before = copy.deepcopy(learner)
    method(batch(), CLOCK)
    method.after_step(CLOCK)
    slow, was = ([*one.twin.parameters(), *one.twin_projection.parameters()] for one in (learner, before))
    for one, two, fast in zip(slow, was, learner.trained(), strict=True):
        torch.testing.assert_close(one, 0.9 * two + 0.1 * fast)
    keys = F.normalize(before.twin_projection(before.twin(batch().crops[0][1]).features), dim=-1)
    torch.testing.assert_close(learner.queue.rows, keys[[1, 2, 3, 4, 5]], rtol=1e-4, atol=1e-5)


RUN = {
    "epochs": 2, "batch_size": 40, "threads": 1, "log_every": 3, "student": "fresh:zoo:cnn-s", "teacher": "fresh:zoo:vit-xs",
    "method": {"name": "disco", "queue": 100, "hidden": 16},
}  # fmt: skip


def test_a_stopped_run_goes_on_to_the_last_bit(grey, after_step, tmp_path):
    recipe = {**RUN, "data": grey}
    assert "probe_after" in api.run(recipe, output=tmp_path / "whole").numbers
    after_step(8, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        api.run(recipe, output=tmp_path / "run")
    api.run(recipe, output=tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    one, two = (load_file(tmp_path / name / "student.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"teacher": None}, "method disco needs a teacher: give --teacher"),
        ({"student": ["fresh:zoo:vit-xs", "fresh:zoo:cnn-xs"]}, "method disco has one student and one teacher"),
        ({"method": {"name": "disco", "momentum": 2.0}}, "key 'method.momentum' is 2.0"),
        ({"view": {"locals": 4}}, "key 'view.locals' is 4: set it to 0, as this method has no use for local crops"),
    ],
)
def test_mistakes_are_one_line(grey, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        api.run({**RUN, "data": grey, **changes}, output=tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
