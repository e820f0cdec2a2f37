"""Momentum weight interpolation against its closed form, and what a run of it keeps."""

import os
import signal

import pytest
import torch

from osmose.engine.clock import Clock
from osmose.engine.interrupt import Interrupted
from osmose.errors import UserError
from osmose.methods.momentum import Momentum
from osmose.models import load_model
from osmose.signals import Frozen


def network(seed, name="cnn-s"):
    return load_model(f"fresh:zoo:{name}", num_classes=4, channels=1, image_size=(12, 12), seed=seed)


def build(**settings):
    return Momentum(network(0), {"teacher1": Frozen(network(1)), "initial": Frozen(network(2))}, **settings)


def floats(module):
    return {name: value.clone() for name, value in module.state_dict().items() if value.is_floating_point()}


def walk(method, steps, *, batch_size=256, steps_per_epoch=100):
    for step in range(steps):
        method.after_step(Clock(step=step, steps_per_epoch=steps_per_epoch, epochs=9, batch_size=batch_size))


@torch.no_grad()
def jump(method):
    """Move every weight and running statistic of the student elsewhere."""
    for value in method.student.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand(value.shape, generator=torch.Generator().manual_seed(3)))


@pytest.mark.parametrize(
    ("every", "batch_size", "blends"), [(1, 256, 10), (2, 256, 5), (2, 64, 2), (2, 512, 10), (4, 512, 5)]
)
def test_the_slow_weights_are_the_closed_form(every, batch_size, blends):
    """With constant fast weights theta_slow = theta_fast + decay^n (theta_0 - theta_fast), running statistics too."""
    method = build(decay=0.8, every=every)
    start = floats(method.student)
    jump(method)
    fast = floats(method.student)
    walk(method, 10, batch_size=batch_size)
    slow = floats(method.products()["student"])
    assert any("running_var" in name for name in slow)
    for name, value in slow.items():
        torch.testing.assert_close(value, fast[name] + 0.8**blends * (start[name] - fast[name]))
    assert all(torch.equal(value, fast[name]) for name, value in floats(method.student).items())  # no aliasing


def test_counting_begins_anew_with_each_epoch():
    """Three steps an epoch and every second one: steps 0, 2, 3, 5 of six."""
    method = build(decay=0.5, every=2)
    start = floats(method.student)
    jump(method)
    fast = floats(method.student)
    walk(method, 6, steps_per_epoch=3)
    for name, value in floats(method.slow).items():
        torch.testing.assert_close(value, fast[name] + 0.5**4 * (start[name] - fast[name]))


def test_restart_makes_the_fast_weights_the_slow_ones_at_each_epochs_end():
    method = build(decay=0.9, restart=True)
    jump(method)
    walk(method, 2, steps_per_epoch=3)
    assert floats(method.student)["body.head.weight"].ne(floats(method.slow)["body.head.weight"]).all()
    walk(method, 3, steps_per_epoch=3)
    slow = floats(method.slow)
    assert all(torch.equal(value, slow[name]) for name, value in floats(method.student).items())


def test_the_slow_copy_does_not_train():
    method = build()
    (player,) = method.players().values()
    trained = {id(parameter) for group in player.groups for parameter in group.parameters}
    assert trained == {id(parameter) for parameter in method.student.parameters()}


def test_a_run_evaluates_and_saves_the_slow_weights(execute, tmp_path):
    """With decay 1 they never move, whatever the student learns."""
    settings = {"name": "momentum", "every": 1, "optimiser": {"lr": 0.5}}
    still = execute(tmp_path / "still", method={**settings, "decay": 1.0})
    moved = execute(tmp_path / "moved", method={**settings, "decay": 0.0})
    assert still.numbers["transfer_delta"] == 0
    assert moved.numbers["accuracy_after"] != still.numbers["accuracy_after"]


def test_a_stopped_run_ends_with_the_same_slow_weights(execute, left, after_step, tmp_path):
    method = {"name": "momentum", "decay": 0.9, "every": 1, "optimiser": {"lr": 0.5}}
    result = execute(tmp_path / "whole", method=method)
    after_step(9, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        execute(tmp_path / "run", method=method)
    execute(tmp_path / "run", method=method)
    assert left(tmp_path / "run") == left(tmp_path / "whole")
    assert load_model(f"file:{tmp_path / 'run'}").digest() == result.student.digest()


def test_settings_out_of_range():
    with pytest.raises(UserError, match=r"^key 'method.decay' is 1.5: set it to a share between 0 and 1"):
        build(decay=1.5)
    with pytest.raises(UserError, match=r"^key 'method.every' is 0: set it to at least 1"):
        build(every=0)
