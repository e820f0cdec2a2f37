"""Whether and how signals are kept on disk."""

import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import torch

from osmose.data.dataset import Dataset
from osmose.data.views import Views
from osmose.errors import UserError, check
from osmose.models.network import Network
from osmose.signals.encoding import Dense, Encoding, TopK
from osmose.signals.frozen import Frozen
from osmose.signals.kept import Kept


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What frozen networks said of a view, kept on disk for the runs that ask again.

    Args:
        store: the folder that keeps them; none computes them in every run.
        dtype: type of the numbers on disk; with float32 a run ends as it would without a store, on a CPU to the last bit.
        top_k: keep of the logits the k most probable classes, the true class and the sum of the others; none keeps all.
        block: samples that a network is shown at a time, the last block padded; none for a micro-batch. Runs with another
            batch size find the same signals where this is the same.
    """

    store: str | None = None
    dtype: Literal["float32", "float16"] = "float32"
    top_k: int | None = None
    block: int | None = None

    def __post_init__(self) -> None:
        for key in ("top_k", "block"):
            value = getattr(self, key)
            check(value is None or value >= 1, f"signals.{key}", value, "at least 1, or null")

    def attach(
        self,
        frozen: Frozen,
        role: str,
        fields: Collection[str],
        data: Dataset,
        views: Views,
        micro_batch: int,
        tell: Callable[[str], None],
    ) -> None:
        """Let a frozen network's signals of the training part be computed in blocks and kept on disk, as these settings say.

        Args:
            frozen: the network.
            role: its role in the run.
            fields: what is asked of it.
            data: the data.
            views: what is done to the images.
            micro_batch: samples it is shown at a time where `block` is not set.
            tell: called with a line for people when records cannot be written.

        Raises:
            UserError: when it does not give a field, or has no classes to choose the top k of.
        """
        frozen.block = self.block or (micro_batch if self.store else None)
        if self.store is None:
            return
        said = frozen.network.tried(data.train.images.shape)
        encodings: dict[str, Encoding] = {}
        for name in fields:
            values = said.field(name)
            if values is None:
                raise UserError(f"'{frozen.network.name}' gives no {name} to keep: leave them out of signals")
            encodings[name] = Dense(values.shape[1:], self.dtype)
        if self.top_k is not None and "logits" in encodings:
            classes = frozen.network.num_classes
            check(self.top_k < classes, "signals.top_k", self.top_k, f"below the number of classes, {classes}")
            encodings["logits"] = TopK(self.top_k, classes, self.dtype)
        device = frozen.network.device
        key = {
            "network": frozen.digest,
            "code": _code(frozen.network),
            "data": data.fingerprint,
            "shape": list(data.train.images.shape),
            "labelled": data.train.labels is not None,
            "view": {name: value for name, value in asdict(views).items() if name != "count"},
            "block": frozen.block,
            "mixed": frozen.mixed,
            "device": torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "versions": {name: _version(name) for name in ("osmose", "torch", "torchvision", "timm", "pillow")},
        }
        about = {"model": frozen.network.name, "data": data.name}
        samples = 1 + max(int(split.index.max()) for split in data.content)
        frozen.kept = Kept(role, Path(self.store), key, about, encodings, samples, len(data.train), tell)


def _code(network: Network) -> str:
    """What computes beside the weights: an architecture by name, or a module's class and layers."""
    if network.architecture is not None:
        return json.dumps(network.architecture, sort_keys=True)
    kind = type(network.body)
    return f"{kind.__module__}.{kind.__qualname__} {hashlib.sha256(repr(network.body).encode()).hexdigest()}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
