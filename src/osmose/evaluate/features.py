"""What a network's features are of a whole part of a data set."""

import torch
from torch import Tensor

from osmose.data.split import Split
from osmose.data.views import Views
from osmose.evaluate.predict import evaluating
from osmose.models.network import Network


def features(network: Network, split: Split, *, batch_size: int = 250, shard: int = 0, shards: int = 1) -> Tensor:
    """The features [n, D] of the plain images of `split`, float32 on the CPU, in evaluation mode.

    Args:
        network: the network; the images go to its device.
        split: n samples.
        batch_size: samples in one forward pass.
        shard: with `shards` > 1 only every `shards`-th batch from this one is computed, the other rows are zero: the sum over
            all shards is the whole.
        shards: processes that share the work.
    """
    found: Tensor | None = None
    with evaluating(network):
        for number, start in enumerate(range(0, len(split), batch_size)):
            if number % shards != shard and found is not None:
                continue
            rows = torch.arange(start, min(start + batch_size, len(split)))
            seen = network(Views.plain(split.inputs.read(rows).to(network.device))).features.float().cpu()
            if found is None:
                found = torch.zeros(len(split), seen.shape[1])
            if number % shards == shard:
                found[rows] = seen
    assert found is not None, "a split has samples"
    return found
