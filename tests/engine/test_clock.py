"""The clock, its streams and its counting."""

import torch

from osmose.engine.clock import Clock


def clock(**changes):
    return Clock(**{"step": 0, "steps_per_epoch": 4, "epochs": 3, "batch_size": 8, **changes})


def draw(now, name="dropout"):
    with now.stream(name):
        return torch.rand(3)


def test_epochs_and_total():
    assert [clock(step=step).epoch for step in (0, 3, 4, 11)] == [0, 0, 1, 2]
    assert clock().total == 12


def test_a_stream_is_a_function_of_seed_name_step_and_shard_alone():
    torch.manual_seed(1)
    first = draw(clock(step=5, shard=1))
    torch.manual_seed(2)
    torch.rand(100)
    assert torch.equal(draw(clock(step=5, shard=1)), first)
    assert torch.equal(draw(clock(step=5, shard=1, epochs=9, batch_size=99)), first)
    for other in (clock(step=6, shard=1), clock(step=5, shard=0), clock(step=5, shard=1, seed=1)):
        assert not torch.equal(draw(other), first)
    assert not torch.equal(draw(clock(step=5, shard=1), "noise"), first)


def test_a_stream_leaves_the_global_generator_as_it_was():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    draw(clock())
    assert torch.equal(torch.rand(2), expected)
