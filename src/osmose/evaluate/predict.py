"""A network's outputs on a whole part of a data set."""

import torch
from torch import Tensor

from osmose.data.split import Split
from osmose.data.views import Views
from osmose.models.network import Network


@torch.no_grad()
def predict(
    network: Network,
    split: Split,
    *,
    batch_size: int = 250,
    shard: int = 0,
    shards: int = 1,
) -> Tensor:
    """Logits [n, c], float32 on the CPU, of the plain images of `split`, in evaluation mode; the network's mode is put back.

    Args:
        network: the network; the images go to its device.
        split: n samples.
        batch_size: samples in one forward pass.
        shard: with `shards` > 1 only every `shards`-th batch from this one is computed, the other rows are zero: the sum over
            all shards is the whole.
        shards: processes that share the work.
    """
    was_training = [module for module in network.modules() if module.training]
    network.eval()
    device = network.mean.device
    logits: Tensor | None = None
    for number, start in enumerate(range(0, len(split), batch_size)):
        if number % shards != shard:
            continue
        rows = torch.arange(start, min(start + batch_size, len(split)))
        outputs = network(Views.plain(split.images.read(rows).to(device)))
        if logits is None:
            logits = torch.zeros(len(split), outputs.logits.shape[-1])
        logits[rows] = outputs.logits.float().cpu()
    for module in was_training:
        module.training = True
    return torch.zeros(len(split), network.num_classes) if logits is None else logits
