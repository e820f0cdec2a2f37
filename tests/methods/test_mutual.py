"""Mutual contrastive learning against its loss written out, and what a stopped run keeps."""

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
from osmose.methods.mutual import Mutual
from osmose.models import load_model
from osmose.models.backbones import Backbones

PIXELS = torch.randint(0, 256, (6, 1, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CLOCK = Clock(step=0, steps_per_epoch=2, epochs=4, batch_size=6)


def network(name, seed=0):
    return load_model(f"fresh:zoo:{name}", num_classes=0, channels=1, image_size=(12, 12), seed=seed)


def build(names=("cnn-xs", "vit-xs"), **settings):
    torch.manual_seed(1)
    networks = Backbones([network(name, number) for number, name in enumerate(names)])
    method = Mutual(networks, {}, **{"queue": 5, "hidden": 7, "width": 4, **settings})
    method.fit_to([(1, 12, 12)], torch.arange(6))
    return method.train()


def batch():
    crops = TwoCrops()(PIXELS, torch.arange(6), 0)
    return Batch(torch.arange(6), 0, crops[0][0], None, crops=crops)


@pytest.mark.parametrize("names", [("cnn-xs", "vit-xs"), ("cnn-xs", "vit-xs", "cnn-xs")])
def test_the_loss_sample_by_sample(names):
    method = build(names, temperature=0.3, hard_weight=0.6, soft_weight=0.7, soft_temperature=2.0)
    for learner in method.learners:
        for parameter in learner.twin.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        learner.queue.numbers.copy_(torch.tensor([9, 4, 8, 0, 4]))  # of samples 0 and 4 themselves some are no others
    found = method(batch(), CLOCK)
    first, second = batch().crops[0]
    total, everyone = 0.0, range(len(names))
    for number in range(6):
        a, b = (crop[number : number + 1] for crop in (first, second))
        v = [F.normalize(one.projection(one.network(a).features)[0], dim=0) for one in method.learners]
        k = [F.normalize(one.twin_projection(one.twin(b).features)[0], dim=0).detach() for one in method.learners]
        queues = [one.queue.rows[one.queue.numbers != number] for one in method.learners]
        scores = [
            [torch.stack([v[i] @ one / 0.3 for one in (k[j], *others)]) for j, others in enumerate(queues)]
            for i in everyone
        ]
        q = [[(one / 2.0).softmax(0) for one in row] for row in scores]
        for i in everyone:
            for j in everyone:
                total = total - 0.6 * scores[i][j].log_softmax(0)[0] / 6
                if i != j:
                    for one, other in ((q[j][j], q[i][i]), (q[j][i], q[i][j])):
                        total = total + 0.7 * 4.0 * (one.detach() * (one.detach().log() - other.log())).sum() / 6
    torch.testing.assert_close(found.loss, total, rtol=1e-5, atol=1e-6)
    parameters = [parameter for learner in method.learners for parameter in learner.projection.parameters()]
    for one, other in zip(
        torch.autograd.grad(found.loss, parameters), torch.autograd.grad(total, parameters), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_without_each_other_it_is_contrast_alone():
    """A network's gradient comes of its own embedding among both twins' keys: the other network does not reach it."""
    method = build(soft_weight=0.0)
    first, second = method.learners
    found = method(batch(), CLOCK)
    found.loss.backward()
    own = first.projection[2].weight.grad.clone()
    for parameter in second.trained():
        parameter.data += 1.0  # its own embeddings do not reach the first network, whose keys are the twin's
    method.zero_grad()
    method(batch(), CLOCK).loss.backward()
    torch.testing.assert_close(first.projection[2].weight.grad, own)


@pytest.mark.parametrize("names", [("cnn-xs", "vit-m"), ("vit-m", "cnn-xs")])
def test_every_twin_follows_its_own_network_and_queues_its_own_keys(names):
    method = build(names, momentum=0.9, queue=4)
    for learner in method.learners:
        for parameter in learner.trained():
            parameter.data += 0.1
    before = copy.deepcopy(method)
    method(batch(), CLOCK)
    method.after_step(CLOCK)
    for learner, old in zip(method.learners, before.learners, strict=True):
        slow, was = ([*one.twin.parameters(), *one.twin_projection.parameters()] for one in (learner, old))
        for one, two, fast in zip(slow, was, learner.trained(), strict=True):
            torch.testing.assert_close(one, 0.9 * two + 0.1 * fast)
        old.eval()  # these twins have no batch normalisation, and their dropout is off in training too
        keys = F.normalize(old.twin_projection(old.twin(batch().crops[0][1]).features), dim=-1)
        torch.testing.assert_close(learner.queue.rows, keys[2:], rtol=1e-4, atol=1e-5)


RUN = {
    "epochs": 2, "batch_size": 40, "threads": 1, "log_every": 3, "student": ["fresh:zoo:cnn-xs", "fresh:zoo:vit-xs"],
    "method": {"name": "mutual", "queue": 100, "hidden": 16, "width": 8},
}  # fmt: skip


def test_a_stopped_run_goes_on_to_the_last_bit(grey, after_step, tmp_path):
    recipe = {**RUN, "data": grey}
    assert set(api.run(recipe, output=tmp_path / "whole").numbers["networks"]) == {"student1", "student2"}
    after_step(8, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        api.run(recipe, output=tmp_path / "run")
    api.run(recipe, output=tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    for student in ("student1", "student2"):
        one, two = (load_file(tmp_path / name / f"{student}.safetensors") for name in ("run", "whole"))
        assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"student": "fresh:zoo:cnn-xs"}, "method mutual takes two students or more"),
        ({"method": {"name": "mutual", "soft_weight": -1.0}}, "key 'method.soft_weight' is -1.0"),
        ({"view": {"globals": 3}}, "key 'view.globals' is 3: set it to 2, which this method compares"),
        ({"teacher": "fresh:zoo:cnn-xs"}, "method mutual has no use for key 'teacher'"),
    ],
)
def test_mistakes_are_one_line(grey, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        api.run({**RUN, "data": grey, **changes}, output=tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
