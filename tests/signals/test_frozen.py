"""Networks that only speak."""

import torch

from osmose.data.batch import Batch
from osmose.models import load_model
from osmose.signals import Frozen

X = torch.rand(4, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def network(name):
    return load_model(f"fresh:zoo:{name}", num_classes=4, channels=1, image_size=(12, 12)).train()


def test_evaluation_mode_and_no_gradients_of_its_own():
    net = network("vit-m")  # has dropout
    before = net.digest()
    frozen = Frozen(net)
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert not any(module.training for module in net.modules())
    first, second = (frozen.signal(Batch(torch.arange(4), 0, X, None)) for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert net.digest() == before


def test_batch_statistics_do_not_move():
    net = network("cnn-s")
    frozen = Frozen(net)
    before = net.digest()
    frozen(X)
    assert net.digest() == before


def test_differentiable_in_the_images():
    x = X.clone().requires_grad_()
    Frozen(network("mlp-xs"))(x).logits.sum().backward()
    assert x.grad.abs().max() > 0


def test_float32_under_autocast():
    frozen = Frozen(network("cnn-xs"))
    plain = frozen(X).logits
    with torch.autocast("cpu", torch.bfloat16):
        inside = frozen(X).logits
    assert inside.dtype == torch.float32
    assert torch.equal(inside, plain)


def test_mixed_is_autocast_whatever_runs_around_it():
    net = network("cnn-xs")
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        expected = net.eval().to(memory_format=torch.channels_last)(X).logits
    said = Frozen(net, mixed=True)(X)
    assert {said.logits.dtype, said.features.dtype, said.tokens.dtype} == {torch.float32}
    assert torch.equal(said.logits, expected.float())
    assert not torch.equal(said.logits, Frozen(network("cnn-xs"))(X).logits)
