"""What a network's features are of a whole part of a data set."""

from torch import Tensor

from osmose.data.split import Split
from osmose.evaluate.predict import in_batches
from osmose.models.network import Network


def features(network: Network, split: Split, *, shard: int = 0, shards: int = 1) -> Tensor:
    """The features [n, D] of the plain images of `split`, float32 on the CPU, in evaluation mode.

    Args:
        network: the network; the images go to its device.
        split: n samples.
        shard: as of `predict`.
        shards: as of `predict`.
    """
    width = network.tried(split.inputs.shape).features.shape[1]

    def say(images: Tensor) -> Tensor:
        found: Tensor = network(images).features
        return found.float()

    return in_batches(network, split, say, width, shard=shard, shards=shards)
