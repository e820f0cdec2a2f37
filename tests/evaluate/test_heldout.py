"""The score of each epoch."""

import copy
from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric

from osmose.data import load_data
from osmose.evaluate import predict
from osmose.evaluate.heldout import HeldOut
from osmose.models import load_model


def test_accuracy_gain_and_loss_since_the_start(grey):
    split = load_data(grey).heldout
    student = load_model("fresh:zoo:mlp-xs", num_classes=4, channels=1, image_size=(12, 12))
    measure = HeldOut(copy.deepcopy(student), lambda: student, split, Fabric(accelerator="cpu", devices=1))
    before = predict(student, split).argmax(-1) == split.labels
    at_start = measure()
    assert list(at_start) == ["heldout_accuracy", "heldout_knowledge_gain", "heldout_knowledge_loss"]
    assert (at_start["heldout_knowledge_gain"], at_start["heldout_knowledge_loss"]) == (0, 0)
    with torch.no_grad():
        student.head.weight.copy_(student.head.weight.flip(0))
    now = predict(student, split).argmax(-1) == split.labels
    assert not torch.equal(now, before)
    n = len(split)
    assert measure() == {
        "heldout_accuracy": 100 * int(now.sum()) / n,
        "heldout_knowledge_gain": 100
        * sum(b and not a for a, b in zip(before.tolist(), now.tolist(), strict=True))
        / n,
        "heldout_knowledge_loss": 100
        * sum(a and not b for a, b in zip(before.tolist(), now.tolist(), strict=True))
        / n,
    }


def test_regression_scores_the_squared_error(grey):
    split = load_data(grey).heldout
    split = replace(split, labels=split.labels.float())
    student = load_model("fresh:zoo:mlp-xs", num_classes=1, channels=1, image_size=(12, 12))
    numbers = HeldOut(student, lambda: student, split, Fabric(accelerator="cpu", devices=1))()
    errors = [(a - b) ** 2 for a, b in zip(predict(student, split)[:, 0].tolist(), split.labels.tolist(), strict=True)]
    assert numbers["heldout_mse"] == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    assert next(iter(numbers.values())) == -numbers["heldout_mse"]  # higher is better
