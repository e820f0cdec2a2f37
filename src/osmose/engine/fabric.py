"""Devices, processes and precision, from Lightning Fabric."""

import atexit
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import Tensor, nn

from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.engine.method import Method
from osmose.engine.settings import Training
from osmose.engine.sharding import shard
from osmose.errors import UserError
from osmose.processes import all_reduce

_PATIENCE = timedelta(hours=12)
"""How long processes wait for the first one, which measures alone at the end; torch's half an hour would end a long run there."""


class _Autocast(MixedPrecision):
    """Mixed precision that leaves inputs and outputs alone: images and signals stay float32."""

    def convert_input(self, data: Any) -> Any:
        return data

    def convert_output(self, data: Any) -> Any:
        return data


@contextmanager
def torch_settings(settings: Training) -> Iterator[None]:
    """Inside the block torch has these settings' threads and determinism; afterwards those it had before."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(settings.threads or threads)
    torch.use_deterministic_algorithms(settings.deterministic)
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        yield
    except RuntimeError as error:
        if settings.deterministic and "does not have a deterministic implementation" in str(error):
            raise UserError(f"{str(error).split(' does not')[0]} has no form that gives the same bits each time on this device: "
                            "set deterministic to false") from error  # fmt: skip
        raise
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def make_fabric(settings: Training) -> Fabric:
    """Fabric for these settings, with its processes launched (under torchrun they are already there).

    Raises:
        UserError: when the machine does not have the devices.
    """
    accelerator = settings.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    processes = int(os.environ.get("WORLD_SIZE", settings.devices))
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    there = {"cuda": torch.cuda.device_count(), "cpu": devices}
    if devices > there[accelerator]:
        raise UserError(
            f"{devices} device(s) of kind {accelerator} asked for, {there[accelerator]} found: "
            "lower devices, or set accelerator to cpu"
        )
    mixed = settings.precision == "bf16-mixed"
    strategy: Any = "auto"
    if processes > 1 and settings.sharded:
        strategy = ModelParallelStrategy(shard, data_parallel_size=processes, tensor_parallel_size=1, timeout=_PATIENCE)
    elif processes > 1:
        strategy = DDPStrategy(find_unused_parameters=True, broadcast_buffers=False, timeout=_PATIENCE)
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", 1)),
        strategy=strategy,
        precision=None if mixed else settings.precision,
        plugins=[_Autocast("bf16-mixed", "cpu" if accelerator == "cpu" else accelerator)] if mixed else [],
    )
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*(broadcast_buffers|find_unused_parameters).*")
    fabric.launch()
    if processes > 1:
        atexit.register(_leave)
    return fabric


class LossOnly(nn.Module):
    """A method as a module that returns its loss alone: what else is returned Fabric and DDP would walk through.

    Attributes:
        parts: what the last forward pass reported beside its loss.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method
        self.parts: Mapping[str, Tensor] = {}

    def forward(self, batch: Batch, clock: Clock) -> Tensor:
        """The loss of one micro-batch."""
        loss, self.parts = self.method(batch, clock)
        return loss


def average_statistics(method: Method) -> None:
    """Give every process the mean of all processes' running statistics, those of normalisation layers."""
    running = [buffer for name, buffer in method.named_buffers() if name.rpartition(".")[2].startswith("running_")]
    if not running:
        return
    mean = all_reduce(torch.cat([buffer.flatten() for buffer in running]), "mean")
    for buffer, part in zip(running, mean.split([buffer.numel() for buffer in running]), strict=True):
        buffer.copy_(part.view_as(buffer))


def _leave() -> None:
    """Without this a process now and then aborts as Python ends (seen with gloo: "terminate called ...")."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
