"""Running means of what a method reports, kept on the device so that no step waits for it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from osmose.processes import all_reduce


class Meter:
    """Sums and counts of a loss and its parts since the last reading."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, loss: Tensor, parts: Mapping[str, Tensor]) -> None:
        """Add one micro-batch's loss and parts, without reading them."""
        for name, value in (("loss", loss.detach()), *parts.items()):
            if name in self.sums:
                self.sums[name] += value
                self.counts[name] += 1
            else:
                self.sums[name] = value.float().clone()
                self.counts[name] = 1

    def read(self) -> dict[str, float]:
        """The means since the last reading, over all processes, in one transfer from the device; starts anew."""
        if not self.sums:
            return {}
        means = torch.stack([total / self.counts[name] for name, total in self.sums.items()])
        read = dict(zip(self.sums, all_reduce(means, "mean").tolist(), strict=True))
        self.sums, self.counts = {}, {}
        return read

    def share(self) -> None:
        """Give every process the mean of all processes' sums: one process's then stand for all in a checkpoint."""
        if self.sums:
            means = all_reduce(torch.stack(list(self.sums.values())), "mean")
            self.sums = dict(zip(self.sums, means.unbind(), strict=True))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"sums": self.sums, "counts": self.counts}

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on from what `state` gave."""
        self.sums = {name: value.to(device) for name, value in state["sums"].items()}
        self.counts = dict(state["counts"])
