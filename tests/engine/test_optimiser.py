"""Schedules in closed form, and the optimisers that the settings build."""

import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from osmose import torchvision_ops
from osmose.engine import checkpoint
from osmose.engine.clock import Clock
from osmose.engine.optimiser import Optimiser, Plateau, at
from osmose.errors import UserError


def clock(step, *, steps_per_epoch=10, epochs=5, batch_size=256):
    return Clock(step=step, steps_per_epoch=steps_per_epoch, epochs=epochs, batch_size=batch_size)


@pytest.mark.parametrize(("batch_size", "rate"), [(256, 0.1), (128, 0.05), (512, 0.2), (64, 0.025)])
def test_the_rate_grows_with_the_global_batch(batch_size, rate):
    assert Optimiser(lr=0.1).rate(clock(3, batch_size=batch_size)) == pytest.approx(rate, rel=1e-15)


def test_constant_is_constant():
    assert {Optimiser(lr=0.3).rate(clock(step)) for step in range(50)} == {0.3}


def test_warmup_rises_linearly_to_the_peak():
    optimiser = Optimiser(lr=0.4, warmup_epochs=1.5)  # 15 steps
    rates = [optimiser.rate(clock(step)) for step in range(50)]
    assert rates[:15] == pytest.approx([0.4 * (step + 1) / 15 for step in range(15)], rel=1e-12)
    assert rates[15:] == [0.4] * 35


@pytest.mark.parametrize("final", [0.0, 0.1])
@pytest.mark.parametrize("warmup_epochs", [0.0, 2.0])
def test_cosine_from_the_peak_to_the_final_share(final, warmup_epochs):
    optimiser = Optimiser(lr=0.4, schedule="cosine", warmup_epochs=warmup_epochs, final=final)
    first = int(10 * warmup_epochs)
    assert optimiser.rate(clock(first)) == pytest.approx(0.4)
    assert optimiser.rate(clock((first + 50) // 2)) == pytest.approx(0.4 * (1 + final) / 2)
    assert optimiser.rate(clock(50)) == pytest.approx(0.4 * final, abs=1e-15)  # reached as the run ends
    quarter = first + (50 - first) / 4
    if quarter.is_integer():
        expected = final + (1 - final) * (1 + math.cos(math.pi / 4)) / 2
        assert optimiser.rate(clock(int(quarter))) == pytest.approx(0.4 * expected)


def test_cosine_agrees_with_torchs_own_schedule():
    parameter = nn.Parameter(torch.zeros(1))
    torchs = torch.optim.SGD([parameter], lr=0.4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(torchs, T_max=50, eta_min=0.04)
    optimiser = Optimiser(lr=0.4, schedule="cosine", final=0.1)
    for step in range(50):
        assert optimiser.rate(clock(step)) == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        torchs.step()
        schedule.step()


@given(st.integers(0, 49), st.floats(0, 4), st.floats(0, 1), st.sampled_from(["constant", "cosine", "plateau"]))
def test_the_rate_is_positive_and_never_above_the_peak(step, warmup_epochs, final, schedule):
    rate = Optimiser(lr=0.1, schedule=schedule, warmup_epochs=warmup_epochs, final=final).rate(clock(step))
    assert 0 < rate <= 0.1 * (1 + 1e-12)


def test_what_is_built():
    parameters = [nn.Parameter(torch.ones(2))]
    for name, cls in (("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        player = Optimiser(name=name, momentum=0.8, weight_decay=0.02, clip=3.0).player(parameters)
        built = player.optimiser([{"params": player.groups[0].parameters, "lr": 0.1}])
        assert type(built) is cls
        assert at(player.groups[0].weight_decay, clock(0)) == 0.02
        assert (player.clip, player.plateau) == (3.0, None)
        if name == "sgd":
            assert (built.defaults["momentum"], built.defaults["nesterov"]) == (0.8, False)
    assert Optimiser(schedule="plateau", plateau=Plateau(patience=7)).player(parameters).plateau.patience == 7


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_is_its_algorithm(name):
    """arXiv 1412.6980 with an L2 term in the gradient, and arXiv 1711.05101, whose decay is apart, in float64."""
    parameter = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    built = (
        Optimiser(name=name, lr=0.1)
        .player([parameter])
        .optimiser([{"params": [parameter], "lr": 0.1, "weight_decay": 0.5}])
    )
    theta, m, v = parameter.detach().clone(), torch.zeros(2).double(), torch.zeros(2).double()
    gradients = (torch.tensor([1.0, -3.0]), torch.tensor([-0.01, 0.2]), torch.tensor([-2.0, -1.0]))
    for step, gradient in enumerate((one.double() for one in gradients), start=1):
        parameter.grad = gradient.clone()
        built.step()
        g = gradient + 0.5 * theta if name == "adam" else gradient
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        decay = 0.0 if name == "adam" else 0.1 * 0.5 * theta
        theta = theta - decay - 0.1 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
        torch.testing.assert_close(parameter.detach(), theta)


def test_lion_is_its_algorithm():
    """arXiv 2302.06675, algorithm 2: theta -= lr * (sign(b1 m + (1 - b1) g) + decay * theta), m = b2 m + (1 - b2) g."""
    torchvision_ops.install()
    pytest.importorskip("timm.optim")
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    built = (
        Optimiser(name="lion", lr=0.1)
        .player([parameter])
        .optimiser([{"params": [parameter], "lr": 0.1, "weight_decay": 0.5}])
    )
    theta, m = parameter.detach().clone(), torch.zeros(2)
    for gradient in (torch.tensor([1.0, -3.0]), torch.tensor([-0.01, 0.2]), torch.tensor([-2.0, -1.0])):
        parameter.grad = gradient.clone()
        built.step()
        theta = theta - 0.1 * ((0.9 * m + 0.1 * gradient).sign() + 0.5 * theta)
        m = 0.99 * m + 0.01 * gradient
        torch.testing.assert_close(parameter.detach(), theta)


@pytest.mark.parametrize("name", ["lion-8bit", "adamw-8bit"])
def test_states_of_8_bits_take_a_byte_a_parameter_and_survive_a_checkpoint(name, tmp_path):
    pytest.importorskip("bitsandbytes", exc_type=ImportError)
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(8192)) for _ in range(2)]
    weights[1].data.copy_(weights[0].data)
    one, two = (Optimiser(name=name).player([w]).optimiser([{"params": [w], "lr": 0.01}]) for w in weights)

    def step(optimiser, weight):
        weight.grad = 2 * weight.detach()
        optimiser.step()

    step(one, weights[0])
    bytes_a_parameter = sum(
        v.nbytes for v in one.state[weights[0]].values() if torch.is_tensor(v) and v.dtype == torch.uint8
    )
    assert bytes_a_parameter == 8192 * (1 if name == "lion-8bit" else 2)
    checkpoint.save(tmp_path, 1, {"optimiser": one.state_dict(), "weight": weights[0].detach()})
    state = checkpoint.load(checkpoint.path_of(tmp_path, 1))
    weights[1].data.copy_(state["weight"])
    two.load_state_dict(state["optimiser"])
    for _ in range(3):
        step(one, weights[0])
        step(two, weights[1])
    assert torch.equal(*weights)
    assert weights[0].abs().mean() < 0.79


@pytest.mark.parametrize(
    ("name", "extra"), [("lion", "vision"), ("lion-8bit", "eight-bit"), ("adamw-8bit", "eight-bit")]
)
def test_a_missing_package_is_named(name, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim" if extra == "eight-bit" else "timm.optim", None)
    with pytest.raises(UserError, match=f"^optimiser {name} needs the extra '{extra}': pip install"):
        Optimiser(name=name).player([nn.Parameter(torch.ones(2))])


def test_numbers_and_functions_are_schedules():
    assert at(0.5, clock(3)) == 0.5
    assert at(lambda now: now.step / now.total, clock(25)) == 0.5


@pytest.mark.parametrize(
    "setting",
    [
        {"lr": -1.0}, {"lr": math.nan}, {"lr": math.inf}, {"momentum": -0.1}, {"momentum": 1.0}, {"weight_decay": -1e-9},
        {"clip": 0.0}, {"clip": -1.0}, {"warmup_epochs": -1.0}, {"final": -0.1},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_one_line(setting):
    (key,) = setting
    with pytest.raises(UserError, match=rf"^key 'optimiser\.{key}' is .*: set it to .*$"):
        Optimiser(**setting)


@pytest.mark.parametrize("setting", [{"patience": 0}, {"factor": 1.0}, {"factor": 0.0}, {"reductions": 0}])
def test_plateaus_out_of_range_are_one_line(setting):
    with pytest.raises(UserError, match=r"^key 'plateau\."):
        Plateau(**setting)
