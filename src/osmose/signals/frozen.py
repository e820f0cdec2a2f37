"""Networks that only speak."""

import torch
from torch import Tensor

from osmose.data.batch import Batch
from osmose.models.network import Network, Outputs


class Frozen:
    """A network that never trains: evaluation mode, float32 answers, outside every method's parameters and checkpoints.

    Args:
        network: the network; set to evaluation mode and without parameter gradients, on `device`.
        device: where it runs.
        mixed: compute in bfloat16 where torch's autocast finds it safe; otherwise in float32, whatever runs around it.
    """

    def __init__(self, network: Network, device: torch.device | str = "cpu", *, mixed: bool = False) -> None:
        self.network = network.requires_grad_(False).eval().to(device)
        self.mixed = mixed
        if mixed:
            # The layout of the fast bfloat16 convolutions; torch's types lack it.
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def signal(self, batch: Batch) -> Outputs:
        """What the network says of a batch, without gradients."""
        return self(batch.x)

    def __call__(self, x: Tensor) -> Outputs:
        """What the network says of x [n, ...], in float32; differentiable in x."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.mixed):
            outputs: Outputs = self.network(x)
        return outputs.float()
