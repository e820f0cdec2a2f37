"""What a network costs, against counts by hand."""

import pytest
import torch
from torch import nn

from osmose.evaluate.cost import cost, peak_bytes
from osmose.models import load_model


def network(*layers):
    return load_model(nn.Sequential(nn.Flatten(), *layers), classes=("a", "b"), mean=(0.0,), std=(1.0,), channels=1)


X = torch.rand(1, 1, 4, 5)


def test_parameters_and_bytes():
    net = network(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.Linear(30, 2))
    found = cost(net, X)
    assert found["parameters"] == 20 * 30 + 30 + 60 + 62
    assert found["weights_mib"] == pytest.approx((4 * (20 * 30 + 30 + 60 + 62 + 60) + 8) / 2**20)
    assert found["latency_ms"] > 0


def test_tied_weights_are_counted_once():
    first, second = nn.Linear(20, 20, bias=False), nn.Linear(20, 20, bias=False)
    second.weight = first.weight
    assert cost(network(first, second, nn.Linear(20, 2)), X)["weights_mib"] == pytest.approx(4 * (400 + 42) / 2**20)


def test_the_peak_is_of_what_is_there_at_once():
    """x less mean, over std, then 20 -> 1000 -> 2: at the peak an input of 80 bytes, and 4000 bytes before and after the ReLU."""
    wide = peak_bytes(network(nn.Linear(20, 1000), nn.ReLU(), nn.Linear(1000, 2)), X)
    assert 8000 <= wide <= 8000 + 4 * 80
    inplace = peak_bytes(network(nn.Linear(20, 1000), nn.ReLU(inplace=True), nn.Linear(1000, 2)), X)
    assert 4000 <= inplace <= 4000 + 4 * 80


def test_weights_and_sample_do_not_count():
    assert peak_bytes(network(nn.Linear(20, 2)), X) <= 3 * 80 + 2 * 8


def test_the_mode_of_the_model_is_put_back():
    net = network(nn.Linear(20, 2), nn.Dropout()).train()
    cost(net, X)
    assert net.training
