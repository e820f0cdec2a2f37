"""A network's outputs on a whole part of a data set."""

from collections.abc import Callable

import torch
from torch import Tensor

from osmose.data.split import Split
from osmose.data.views import Views
from osmose.models.model import Model, Predictor, evaluating


def predict(
    network: Predictor,
    split: Split,
    *,
    batch_size: int = 250,
    shard: int = 0,
    shards: int = 1,
) -> Tensor:
    """Answers [n, c] to the plain samples of `split`, float32 on the CPU: logits, or a generator's errors.

    They are given in evaluation mode; the network's mode is put back.

    Args:
        network: the network; the samples go to its device.
        split: n samples.
        batch_size: samples in one forward pass.
        shard: with `shards` > 1 only every `shards`-th batch from this one is computed, the other rows are zero: the sum over
            all shards is the whole.
        shards: processes that share the work.
    """
    return in_batches(network, split, network.answer, network.width, batch_size=batch_size, shard=shard, shards=shards)


def in_batches(
    model: Model,
    split: Split,
    say: Callable[[Tensor], Tensor],
    width: int,
    *,
    batch_size: int = 250,
    shard: int = 0,
    shards: int = 1,
) -> Tensor:
    """What is said [n, width] of the plain samples of `split`, in evaluation mode and without gradients, on the CPU.

    Args:
        model: which is put into evaluation mode; the samples go to its device.
        split: n samples.
        say: what is asked of a batch, to float32 [batch, width].
        width: numbers of a sample.
        batch_size: as of `predict`.
        shard: as of `predict`.
        shards: as of `predict`.
    """
    said = torch.zeros(len(split), width)
    with evaluating(model):
        for number, start in enumerate(range(0, len(split), batch_size)):
            if number % shards != shard:
                continue
            rows = torch.arange(start, min(start + batch_size, len(split)))
            said[rows] = say(Views.plain(split.inputs.read(rows).to(model.device))).cpu()
    return said
