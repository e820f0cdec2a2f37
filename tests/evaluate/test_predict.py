"""Outputs on a whole part."""

import pytest
import torch
from torch import nn

from osmose.data import load_data
from osmose.evaluate import predict
from osmose.models import load_model


@pytest.fixture
def heldout(grey):
    return load_data(grey, heldout=0.2).heldout  # 60 samples


@pytest.fixture
def network():
    return load_model("fresh:zoo:cnn-s", num_classes=4, channels=1, image_size=(12, 12))


def test_rows_are_the_networks_logits_in_order(heldout, network):
    images = heldout.inputs.read(torch.arange(60)).float() / 255
    network.eval()
    with torch.no_grad():
        rows = torch.cat([network(images[i : i + 1]).logits for i in range(60)])
    for batch_size in (7, 60, 250):
        torch.testing.assert_close(predict(network, heldout, batch_size=batch_size), rows, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shards", [2, 3, 11])
def test_shards_sum_to_the_whole(heldout, network, shards):
    whole = predict(network, heldout, batch_size=9)
    parts = [predict(network, heldout, batch_size=9, shard=shard, shards=shards) for shard in range(shards)]
    assert torch.equal(torch.stack(parts).sum(0), whole)
    rows = [(part != 0).any(-1) for part in parts]
    assert torch.stack(rows).sum(0).max() == 1  # nobody computes what another does


def test_modes_are_put_back_and_nothing_moves(heldout, network):
    network.train()
    network.head.eval()
    modes = [module.training for module in network.modules()]
    assert len(set(modes)) == 2
    before = network.digest()
    logits = predict(network, heldout)
    assert [module.training for module in network.modules()] == modes
    assert network.digest() == before  # batch statistics did not move
    assert not logits.requires_grad
    network.eval()
    predict(network, heldout)
    assert not network.training


def test_narrow_outputs_come_back_as_float32(heldout):
    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(144, 4)

        def forward(self, x):
            return self.fc(x.flatten(1)).bfloat16()

    assert predict(load_model(Narrow(), channels=1), heldout).dtype == torch.float32
