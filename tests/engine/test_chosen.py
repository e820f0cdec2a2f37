"""The best epoch so far."""

import torch
from torch import nn

from osmose.engine.chosen import Chosen


def test_the_first_of_equal_scores_is_kept_with_its_weights():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    chosen = Chosen()
    seen = []
    for epoch, score in enumerate([1.0, 3.0, 3.0, 2.0], start=1):
        with torch.no_grad():
            network[0].weight.fill_(epoch)
        chosen.update(score, epoch, {"student": network})
        seen.append((chosen.epoch, chosen.score, chosen.waited))
    assert seen == [(1, 1.0, 0), (2, 3.0, 0), (2, 3.0, 1), (2, 3.0, 2)]
    assert chosen.weights["student"].keys() == network.state_dict().keys()
    assert chosen.weights["student"]["0.weight"].unique().tolist() == [2.0]  # a copy, not the live tensor


def test_a_reduction_puts_the_best_weights_back():
    network = nn.Linear(2, 2)
    chosen = Chosen()
    chosen.update(1.0, 1, {"student": network})
    best = network.weight.detach().clone()
    with torch.no_grad():
        network.weight.zero_()
    chosen.update(0.0, 2, {"student": network})
    chosen.reduce({"student": network})
    assert torch.equal(network.weight, best)
    assert (chosen.reductions, chosen.waited, chosen.score) == (1, 0, 1.0)
