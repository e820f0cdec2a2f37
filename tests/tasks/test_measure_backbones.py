"""Neighbours after an epoch against the votes one by one."""

import math

import torch
from lightning_fabric import Fabric
from torch import nn

from osmose.data.inputs import MemoryInputs
from osmose.data.split import Split
from osmose.models import load_model
from osmose.models.backbones import Backbones
from osmose.tasks.measure_backbones import HeldOutNeighbours


def noise(count, seed):
    """Dark images and bright ones, hard to tell."""
    labels = torch.arange(count) % 2
    images = torch.randint(0, 200, (count, 1, 2, 3), generator=torch.Generator().manual_seed(seed))
    return Split(MemoryInputs((images + 40 * labels.view(-1, 1, 1, 1)).byte()), labels, torch.arange(count))


class Weighted(nn.Module):
    """Features are pixels, some of which count more; in training mode they are nothing."""

    def __init__(self, *weights):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights))

    def forward(self, x):
        return x.flatten(1) * self.weights * (not self.training)


def right(train, heldout, weights):
    """Percent of held-out samples whose class has most votes among their 20 nearest of the training part."""
    bank, asked = (split.inputs.read(torch.arange(len(split))).flatten(1) / 255 * weights for split in (train, heldout))
    hits = 0
    for row, image in enumerate(asked):
        cosines = [float(image @ one / image.norm() / one.norm()) for one in bank]
        nearest = sorted(range(len(bank)), key=lambda place: -cosines[place])[:20]
        votes = [sum(math.exp(cosines[p] / 0.07) for p in nearest if train.labels[p] == c) for c in (0, 1)]
        hits += int((votes[1] > votes[0]) == heldout.labels[row])
    return 100 * hits / len(asked)


def test_neighbours_of_the_training_part_vote_on_heldout_samples():
    train, heldout = noise(60, 0), noise(50, 1)
    weights = torch.tensor([[1.0, 1, 1, 1, 1, 1], [3.0, 0, 0, 1, 0, 0]])
    bodies = [Weighted(*one.tolist()).train() for one in weights]
    pair = Backbones([load_model(body, channels=1) for body in bodies])
    wanted = [right(train, heldout, one) for one in weights]
    assert len({50.0, 100.0, *wanted}) == 4, "the two differ, and are neither chance nor perfect"
    fabric = Fabric(accelerator="cpu", devices=1)
    found = HeldOutNeighbours(lambda: pair, train, heldout, fabric)()
    assert found == {
        "heldout_neighbours": sum(wanted) / 2,
        "heldout_student1": wanted[0],
        "heldout_student2": wanted[1],
    }
    alone = Backbones([load_model(bodies[1], channels=1)])
    assert HeldOutNeighbours(lambda: alone, train, heldout, fabric)() == {"heldout_neighbours": wanted[1]}
