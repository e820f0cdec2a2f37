"""What the processes of one run tell each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed

from osmose.errors import UserError


def all_reduce(tensor: Tensor, operation: Literal["sum", "mean", "max"]) -> Tensor:
    """The sum, mean or maximum of a tensor over all processes, on its own device; with one process the tensor itself.

    Every process of the run must call it at the same place.
    """
    if not distributed.is_initialized():
        return tensor
    reduced = tensor.to("cuda" if distributed.get_backend() == "nccl" else "cpu", copy=True)
    distributed.all_reduce(reduced, distributed.ReduceOp.MAX if operation == "max" else distributed.ReduceOp.SUM)
    if operation == "mean":
        reduced = reduced / distributed.get_world_size()
    return reduced.to(tensor.device)


def all_gather(tensor: Tensor) -> Tensor:
    """The processes' tensors, equal in shape, one after another along the first dimension; with one process the tensor itself."""
    if not distributed.is_initialized():
        return tensor
    mine = tensor.to("cuda" if distributed.get_backend() == "nccl" else "cpu").contiguous()
    parts = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, mine)
    return torch.cat(parts).to(tensor.device)


@contextmanager
def together(fabric: Fabric) -> Iterator[None]:
    """What stops one process in this block stops all: none is left waiting, and the first of those with a mistake tells the user.

    Every process of the run must come through the block.

    Raises:
        BaseException: what was raised in the block.
        SystemExit: in another process; and instead of a `UserError` that an earlier one tells.
    """
    failed: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failed = error
    rank, count = fabric.global_rank, fabric.world_size
    speaks = count - int(all_reduce(torch.tensor(0 if failed is None else count - rank), "max"))
    if failed is not None and (speaks == rank or not isinstance(failed, UserError)):
        raise failed
    if speaks < count:
        raise SystemExit(2)


def stop(message: str) -> UserError | SystemExit:
    """What every process raises that found the same mistake: a `UserError` in the first one, which tells the user."""
    return UserError(message) if is_first() else SystemExit(2)


def is_first() -> bool:
    """Whether this is the process that speaks to the user."""
    return not distributed.is_initialized() or distributed.get_rank() == 0
