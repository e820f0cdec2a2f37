"""What the processes of one run tell each other."""

from lightning_fabric import Fabric
from torch import Tensor


def all_reduce(fabric: Fabric, tensor: Tensor, operation: str) -> Tensor:
    """The "sum", "mean" or "max" of a tensor over all processes, on its own device; with one process the tensor itself."""
    if fabric.world_size == 1:
        return tensor
    reduced = fabric.all_reduce(tensor.to(fabric.device), reduce_op=operation)
    assert isinstance(reduced, Tensor)
    return reduced.to(tensor.device)
