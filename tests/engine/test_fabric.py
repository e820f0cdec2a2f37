"""Devices and precision."""

import pytest
import torch
from torch import nn

from osmose.engine.fabric import make_fabric, torch_settings
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


def test_missing_devices_are_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"^2 device\(s\) of kind cuda asked for, 1 found: lower devices"):
        make_fabric(Training(accelerator="cuda", devices=2))


def test_threads_and_determinism_are_those_of_the_run_inside_and_the_callers_outside():
    def now():
        return torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()

    before = now()
    with torch_settings(Training(threads=2, deterministic=True)):
        assert now() == (2, True)
        with torch_settings(Training()):
            assert now() == (2, False)
        assert now() == (2, True)
    assert now() == before == (1, False)


def test_an_operation_without_a_deterministic_form_is_one_line():
    """As torch words it, on a GPU."""
    words = "grid_sampler_2d_backward_cuda does not have a deterministic implementation, but you set ..."
    with (
        pytest.raises(UserError, match=r"^grid_sampler_2d_backward_cuda has no form .*: set deterministic to false$"),
        torch_settings(Training(deterministic=True)),
    ):
        raise RuntimeError(words)
    with pytest.raises(RuntimeError, match="another"), torch_settings(Training(deterministic=True)):
        raise RuntimeError("another")
