"""What a network costs to run: parameters, bytes, time and memory."""

import statistics
import time
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from osmose.models.model import Model, evaluating


def cost(model: Model, sample: Tensor, *, repeats: int = 10) -> dict[str, Any]:
    """Parameters, MiB of its weights, and milliseconds and peak MiB of a forward pass of one sample.

    Args:
        model: the model, where it should run.
        sample: x [1, ...], in [0, 1] where it is an image.
        repeats: forward passes, of which the median counts, after two that do not.

    Returns:
        "parameters"; "weights_mib", parameters and buffers, tied ones once; "latency_ms"; "peak_mib", the most that its
        intermediate results take at any time, without weights and sample.
    """
    x = sample.to(model.device)
    times = []
    with evaluating(model):
        for _ in range(repeats + 2):
            started = time.perf_counter()
            model.answer(x)
            if x.is_cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
        peak = peak_bytes(model, x)
    return {
        "parameters": model.size,
        "weights_mib": sum({one.data_ptr(): one.nbytes for one in model.state_dict().values()}.values()) / 2**20,
        "latency_ms": 1000 * statistics.median(times[2:]),
        "peak_mib": peak / 2**20,
    }


def peak_bytes(model: Model, x: Tensor) -> int:
    """The most bytes that results of operations take at any time while a model answers, on any device."""
    with _Live(x, *model.parameters(), *model.buffers()) as live:
        model.answer(x)
    return live.peak


class _Live(TorchDispatchMode):
    """Counts the storage of every tensor that an operation gives, until nobody holds it."""

    def __init__(self, *known: Tensor) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.holders: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in (leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)):
            self._hold(tensor)
        return result

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if place in self.known or not size:
            return
        if place not in self.holders:
            self.now += size
            self.peak = max(self.peak, self.now)
        self.holders[place] = self.holders.get(place, 0) + 1
        weakref.finalize(tensor, self._release, place, size)

    def _release(self, place: int, size: int) -> None:
        self.holders[place] -= 1
        if not self.holders[place]:
            del self.holders[place]
            self.now -= size
