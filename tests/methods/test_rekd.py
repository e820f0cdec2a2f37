"""ReKD against its loss written out; what it shares with SEED is tested there."""

import pytest
import torch

from osmose import api
from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.errors import UserError
from osmose.methods.rekd import Rekd
from osmose.models import load_model
from osmose.models.backbones import Backbones
from osmose.signals import Frozen

X = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(0))
CLOCK = Clock(step=0, steps_per_epoch=2, epochs=4, batch_size=6)


def network(name, seed=0):
    return load_model(f"fresh:zoo:{name}", num_classes=0, channels=1, image_size=(12, 12), seed=seed)


@pytest.mark.parametrize("positives", [0, 2, 4])
def test_the_loss_sample_by_sample(positives):
    torch.manual_seed(1)
    frozen = {"teacher1": Frozen(network("vit-s", 1))}
    method = Rekd(Backbones([network("cnn-xs")]), frozen, queue=5, positives=positives, temperature=0.3)
    method.fit_to([(1, 12, 12)], torch.arange(6))
    found = method(Batch(torch.arange(6), 0, X, None), CLOCK).loss
    total = 0.0
    for mine, his in zip(
        method.projection(method.network(X).features), method.teacher.network(X).features, strict=True
    ):
        mine, his = mine / mine.norm(), his / his.norm()
        others = [his, *method.queue.rows]
        by_likeness = sorted(range(1, 6), key=lambda number: -float(his @ others[number]))
        shares = torch.stack([mine @ one / 0.3 for one in others]).softmax(0)
        total = total - shares[[0, *by_likeness[:positives]]].sum().log() / 6
    torch.testing.assert_close(found, total, rtol=1e-5, atol=1e-6)
    parameters = list(method.projection.parameters())
    for one, other in zip(torch.autograd.grad(found, parameters), torch.autograd.grad(total, parameters), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


RUN = {
    "epochs": 1, "batch_size": 40, "threads": 1, "student": "fresh:zoo:cnn-xs", "teacher": "fresh:zoo:vit-xs",
    "method": {"name": "rekd", "queue": 100},
}  # fmt: skip


def test_a_run_gives_features(grey, tmp_path):
    assert "probe_after" in api.run({**RUN, "data": grey}, output=tmp_path / "run").numbers


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"teacher": None}, "method rekd needs a teacher: give --teacher"),
        ({"student": ["fresh:zoo:vit-xs", "fresh:zoo:cnn-xs"]}, "method rekd has one student and one teacher"),
        (
            {"method": {"name": "rekd", "queue": 5, "positives": 5}},
            "key 'method.positives' is 5: set it to at least 0 and below",
        ),
        (
            {"method": {"name": "rekd", "positives": 9000}},
            "key 'method.positives' is 9000: set it to below the number of samples",
        ),
        ({"method": {"name": "rekd", "temperature": 0.0}}, "key 'method.temperature' is 0.0"),
    ],
)
def test_mistakes_are_one_line(grey, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        api.run({**RUN, "data": grey, **changes}, output=tmp_path / "run")
