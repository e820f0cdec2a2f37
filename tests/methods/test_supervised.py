"""Training with labels alone."""

import pytest
import torch
import torch.nn.functional as F

from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.errors import UserError
from osmose.methods.supervised import Supervised
from osmose.models import load_model

X = torch.rand(8, 1, 12, 12, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 4
CLOCK = Clock(step=0, steps_per_epoch=2, epochs=4, batch_size=8)


def network(name, classes=4):
    return load_model(f"fresh:zoo:{name}", num_classes=classes, channels=1, image_size=(12, 12))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_classification(smoothing):
    method = Supervised(network("mlp-xs"), {}, smoothing=smoothing)
    weights = (1 - smoothing) * F.one_hot(Y, 4) + smoothing / 4
    expected = -(weights * method.student(X).logits.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(method(Batch(Y, 0, X, Y), CLOCK).loss, expected)
    assert method.needs() == {"labels"}


def test_regression_is_the_mean_squared_error():
    method = Supervised(network("mlp-xs", classes=1), {})
    y = torch.linspace(-1, 1, 8)
    error = [(a - b) ** 2 for a, b in zip(method.student(X).logits[:, 0].tolist(), y.tolist(), strict=True)]
    assert method(Batch(Y, 0, X, y), CLOCK).loss.item() == pytest.approx(sum(error) / 8, rel=1e-5)


def test_head_alone_leaves_the_body_as_it_is_in_evaluation_mode():
    method = Supervised(network("cnn-s"), {}, train="head")
    (player,) = method.players().values()
    head = list(method.student.head.parameters())
    assert [id(p) for group in player.groups for p in group.parameters] == [id(p) for p in head]
    for parameter in head:
        parameter.requires_grad_(True)  # as the engine does for every player's parameters
    method.train()
    assert not any(module.training for module in method.student.modules())
    body = {key: value.clone() for key, value in method.student.state_dict().items()}
    method(Batch(Y, 0, X, Y), CLOCK).loss.backward()
    assert {p for p in method.parameters() if p.grad is not None} == set(head)
    assert all(torch.equal(value, body[key]) for key, value in method.student.state_dict().items())


def test_all_of_it_trains_by_default():
    method = Supervised(network("cnn-s"), {})
    method.train()
    assert all(module.training for module in method.student.modules())
    method(Batch(Y, 0, X, Y), CLOCK).loss.backward()
    assert all(parameter.grad is not None for parameter in method.parameters())


def test_mistakes_are_one_line():
    with pytest.raises(UserError, match=r"^key 'method\.smoothing' is 2\.0: set it to a share between 0 and 1$"):
        Supervised(network("mlp-xs"), {}, smoothing=2.0)
