"""Weights, gradients and optimiser state spread over processes (FSDP2), and gathered where one process needs them whole."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map


def shard(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Spread a module's parameters over the processes: those of each layer of its models together, and all others."""
    processes = mesh["data_parallel"]
    for layer in [layer for one in module.modules() for layer in getattr(one, "layers_to_shard", ())]:
        fully_shard(layer, mesh=processes)
    fully_shard(module, mesh=processes)
    return module


def unsharded(values: Any, *, keep: bool = True) -> Any:
    """The same mappings and lists, with tensors that are spread gathered on the CPU, one after another.

    Every process must call it; one that does not `keep` them has None in their place, and never holds more than one.
    """

    def whole(one: Any) -> Any:
        if not isinstance(one, DTensor):
            return one
        gathered = one.full_tensor()
        return gathered.cpu() if keep else None

    return tree_map(whole, values)


def spread(values: Mapping[str, Any], like: Mapping[str, Tensor]) -> dict[str, Any]:
    """Whole tensors spread as those of their names in `like` are; others as they come."""
    return {name: _spread(value, like.get(name)) for name, value in values.items()}


def _spread(value: Any, like: Tensor | None) -> Any:
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def spread_optimiser(state: dict[str, Any], parameters: list[nn.Parameter]) -> dict[str, Any]:
    """An optimiser's whole state spread as its parameters are, which are given in its order."""
    each = {
        number: spread(
            values, {name: parameters[number] for name, value in values.items() if _is_of(value, parameters[number])}
        )
        for number, values in state["state"].items()
    }
    return {**state, "state": each}


def _is_of(value: Any, parameter: nn.Parameter) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


def finite(parameters: list[nn.Parameter]) -> bool:
    """Whether the part that is here of all parameters is finite."""
    local = [one.to_local() if isinstance(one, DTensor) else one for one in parameters]
    return bool(torch.stack([one.isfinite().all() for one in local]).all())


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Inside the block the parameters outside all layers are whole, so that a part of the module can be run by itself."""
    roots = [one for one in module.modules() if isinstance(one, FSDPModule)][:1]
    for root in roots:
        root.unshard()
    try:
        yield
    finally:
        for root in roots:
            root.reshard()
