"""Devices and precision."""

import pytest
import torch
from torch import nn

from osmose.engine.fabric import make_fabric
from osmose.engine.settings import Training
from osmose.errors import UserError


def test_mixed_precision_leaves_inputs_and_outputs_alone():
    seen = []

    class Probe(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            seen.append((x.dtype, self.fc(x).dtype, self.fc.weight.dtype))
            return x.double()

    module = make_fabric(Training(precision="bf16-mixed", accelerator="cpu")).setup_module(Probe())
    assert module(torch.ones(1, 3)).dtype == torch.float64
    assert seen == [(torch.float32, torch.bfloat16, torch.float32)]


@pytest.mark.parametrize("accelerator", ["cuda", "mps"])
def test_missing_devices_are_one_line(accelerator, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(UserError, match=rf"^2 device\(s\) of kind {accelerator} asked for, 1 found: lower devices"):
        make_fabric(Training(accelerator=accelerator, devices=2))


def test_threads_are_set():
    try:
        make_fabric(Training(threads=2, accelerator="cpu"))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
