"""What the processes of one run tell each other."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed
from lightning_fabric import Fabric
from torch import Tensor

from osmose.errors import UserError


def all_reduce(fabric: Fabric, tensor: Tensor, operation: str) -> Tensor:
    """The "sum", "mean" or "max" of a tensor over all processes, on its own device; with one process the tensor itself."""
    if fabric.world_size == 1:
        return tensor
    reduced = fabric.all_reduce(tensor.to(fabric.device), reduce_op=operation)
    assert isinstance(reduced, Tensor)
    return reduced.to(tensor.device)


@contextmanager
def together(fabric: Fabric) -> Iterator[None]:
    """What stops the first process in this block stops all: none is left waiting for it, and only the first tells the user.

    Every process of the run must come through the block.

    Raises:
        UserError: what was raised in the block.
        SystemExit: in another process, when the first one raised.
    """
    mistake: UserError | None = None
    try:
        yield
    except UserError as error:
        mistake = error
    if fabric.broadcast(mistake is not None) and not fabric.is_global_zero:
        raise SystemExit(2)
    if mistake is not None:
        raise mistake


def is_first() -> bool:
    """Whether this is the process that speaks to the user."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
