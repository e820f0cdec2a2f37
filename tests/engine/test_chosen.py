"""The best epoch so far."""

import torch
from torch import nn

from osmose.engine.chosen import Chosen


class Pair(nn.Module):
    """A product, and a network that trains beside it."""

    def __init__(self, student, other=None):
        super().__init__()
        self.student, self.other = student, other

    def products(self):
        return {"student": self.student}


def test_the_first_of_equal_scores_is_kept_with_its_weights():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    chosen = Chosen()
    seen = []
    for epoch, score in enumerate([1.0, 3.0, 3.0, 2.0], start=1):
        with torch.no_grad():
            network[0].weight.fill_(epoch)
        chosen.update(score, epoch, Pair(network))
        seen.append((chosen.epoch, chosen.score, chosen.waited))
    assert seen == [(1, 1.0, 0), (2, 3.0, 0), (2, 3.0, 1), (2, 3.0, 2)]
    assert chosen.weights["student"].keys() == network.state_dict().keys()
    assert chosen.weights["student"]["0.weight"].unique().tolist() == [2.0]  # a copy, not the live tensor


def test_a_reduction_brings_all_state_back_and_forgets_momentum():
    """Not the product alone: whoever trains beside it goes back to the same epoch."""
    method = Pair(nn.Linear(2, 2), nn.Linear(2, 2))
    optimiser = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9)
    chosen = Chosen()

    def step():
        method.student(torch.ones(1, 2)).sum().backward()
        method.other(torch.ones(1, 2)).sum().backward()
        optimiser.step()

    step()
    chosen.update(1.0, 1, method, whole=True)
    best = [parameter.detach().clone() for parameter in method.parameters()]
    step()
    chosen.update(0.0, 2, method, whole=True)
    chosen.reduce(method, {"student": optimiser})
    assert all(torch.equal(now, then) for now, then in zip(method.parameters(), best, strict=True))
    assert not optimiser.state
    assert (chosen.reductions, chosen.waited, chosen.score) == (1, 0, 1.0)
    step()
    assert all(torch.equal(state, then) for state, then in zip(chosen.method.values(), best, strict=True))
