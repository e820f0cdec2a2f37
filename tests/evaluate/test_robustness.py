"""Accuracy on domains: against a plain loop, over class subsets, and how a summary takes means."""

import copy

import torch
from torch import nn

from osmose.data.corruptions import Corruption
from osmose.data.domains import Domain, corrupted
from osmose.data.inputs import MemoryInputs
from osmose.data.split import Split
from osmose.evaluate.robustness import domain_accuracy, gaps, summarise
from osmose.models import load_model


def network(weight):
    body = nn.Sequential(nn.Flatten(), nn.Linear(9, 4, bias=False))
    body[1].weight.data = weight
    return load_model(body, channels=1).eval()


GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (40, 1, 3, 3), dtype=torch.uint8, generator=GENERATOR)
LABELS = torch.randint(0, 4, (40,), generator=GENERATOR)
SPLIT = Split(MemoryInputs(IMAGES), LABELS, torch.arange(40))
WEIGHTS = {"a": torch.randn(4, 9, generator=GENERATOR), "b": torch.randn(4, 9, generator=GENERATOR)}


def test_against_a_plain_loop():
    networks = {name: network(weight) for name, weight in WEIGHTS.items()}
    for domain in (Domain("clean", SPLIT), corrupted(SPLIT, Corruption("translate", 1))):
        found = domain_accuracy(networks, domain, batch_size=7)
        for name, weight in WEIGHTS.items():
            right = sum(
                int((weight @ (domain[row].flatten().double() / 255).float()).argmax()) == int(LABELS[row])
                for row in range(40)
            )
            assert found[name] == 100 * right / 40
        assert domain_accuracy(networks, domain, batch_size=7, workers=2) == found


def test_networks_are_asked_in_evaluation_mode_and_keep_their_own():
    body = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(9, 4))
    training = load_model(body, channels=1).train()
    body[1].eval()
    before, modes = copy.deepcopy(body.state_dict()), [module.training for module in body]
    found = domain_accuracy({"a": training}, Domain("clean", SPLIT))
    assert [module.training for module in body] == modes
    assert all(torch.equal(value, before[name]) for name, value in body.state_dict().items())
    assert domain_accuracy({"a": training.eval()}, Domain("clean", SPLIT)) == found


def test_only_the_classes_of_the_domain_compete():
    columns = torch.tensor([1, 3])
    rows = (LABELS % 2 == 1).nonzero().flatten()
    domain = Domain("some", Split(MemoryInputs(IMAGES[rows]), LABELS[rows] // 2, rows), columns=columns)
    found = domain_accuracy({"a": network(WEIGHTS["a"])}, domain)["a"]
    logits = IMAGES[rows].flatten(1).float() / 255 @ WEIGHTS["a"].T
    right = [(1 if one[1] > one[3] else 3) == int(label) for one, label in zip(logits, LABELS[rows], strict=True)]
    assert found == 100 * sum(right) / len(right)


def test_any_of_several_labels_is_right():
    several = torch.zeros(40, 4, dtype=torch.bool)
    several[:20] = True
    domain = Domain("real", Split(MemoryInputs(IMAGES), several, torch.arange(40)))
    assert domain_accuracy({"a": network(WEIGHTS["a"])}, domain)["a"] == 50.0


def row(model, kind, group, part, accuracy):
    return {"model": model, "kind": kind, "group": group, "part": part, "accuracy": accuracy}


def test_a_summary_is_of_means_over_parts_and_then_groups():
    rows = [
        row("t", "clean", "clean", "", 90.0),
        row("t", "corrupted", "fog", "1", 80.0), row("t", "corrupted", "fog", "2", 60.0),
        row("t", "corrupted", "snow", "1", 40.0),
        row("t", "in_domain", "v2", "", 70.0),
        row("t", "out_of_domain", "c", "fog 1", 10.0), row("t", "out_of_domain", "c", "fog 2", 30.0),
        row("t", "out_of_domain", "r", "", 60.0),
    ]  # fmt: skip
    student = [{**one, "model": "s", "accuracy": one["accuracy"] - 5} for one in rows]
    summary = summarise([*rows, *student])
    assert summary[0] == {
        "model": "t", "clean": 90.0, "corrupted": 55.0, "in_domain": 80.0, "out_of_domain": 40.0,
        "fog": 70.0, "snow": 40.0, "v2": 70.0, "c": 20.0, "r": 60.0,
    }  # fmt: skip
    assert gaps(summary) == [{"model": "s", **{key: 5.0 for key in summary[0] if key != "model"}}]
