"""Networks that only speak."""

import torch
from torch import Tensor

from osmose.data.batch import Batch
from osmose.models.network import Network, Outputs


class Frozen:
    """A network that never trains: evaluation mode, float32, outside every method's parameters and checkpoints.

    Args:
        network: the network; set to evaluation mode and without parameter gradients, on `device`.
        device: where it runs.
    """

    def __init__(self, network: Network, device: torch.device | str = "cpu") -> None:
        self.network = network.requires_grad_(False).eval().to(device)

    @torch.no_grad()
    def signal(self, batch: Batch) -> Outputs:
        """What the network says of a batch, without gradients."""
        return self(batch.x)

    def __call__(self, x: Tensor) -> Outputs:
        """What the network says of x [n, ...]; differentiable in x."""
        with torch.autocast(x.device.type, enabled=False):
            outputs: Outputs = self.network(x)
        return outputs
