"""Running means."""

import torch

from osmose.engine.meter import Meter
from osmose.engine.method import Step


def step(loss, **parts):
    return Step(torch.tensor(loss, requires_grad=True), {name: torch.tensor(value) for name, value in parts.items()})


def test_means_since_the_last_reading():
    meter = Meter()
    for loss, kl in ((1.0, 10.0), (2.0, 20.0), (6.0, 60.0)):
        meter.add(*step(loss, kl=kl))
    assert meter.read() == {"loss": 3.0, "kl": 30.0}
    assert meter.read() == {}
    meter.add(*step(5.0))
    assert meter.read() == {"loss": 5.0}


def test_a_part_that_is_not_always_there_is_averaged_over_where_it_is():
    meter = Meter()
    meter.add(*step(1.0))
    meter.add(*step(3.0, phase=8.0))
    assert meter.read() == {"loss": 2.0, "phase": 8.0}


def test_narrow_parts_are_summed_in_float32():
    meter = Meter()
    for _ in range(300):
        meter.add(*Step(torch.tensor(1.0), {"share": torch.tensor(1.0, dtype=torch.bfloat16)}))
    assert meter.read()["share"] == 1.0  # bfloat16 would stop counting at 256


def test_adding_does_not_change_what_was_given():
    given = step(1.0, kl=1.0)
    meter = Meter()
    meter.add(*given)
    meter.add(*step(5.0, kl=5.0))
    assert given.parts["kl"].item() == 1.0


def test_going_on_from_a_saved_state():
    whole, first = Meter(), Meter()
    for value in (0.1, 0.7, 0.9):
        whole.add(*step(value))
    first.add(*step(0.1))
    state = first.state()
    second = Meter()
    second.restore(state, torch.device("cpu"))
    second.add(*step(0.7))
    second.add(*step(0.9))
    assert second.read() == whole.read()
