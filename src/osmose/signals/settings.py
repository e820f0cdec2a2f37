"""Whether and how signals are kept on disk."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from osmose.data.split import Split
from osmose.errors import check
from osmose.models.model import Model
from osmose.signals.kept import Kept
from osmose.signals.speaker import Speaker


class Material(Protocol):
    """Data, as far as signals of it are kept."""

    @property
    def name(self) -> str:
        """What the user calls it."""

    @property
    def train(self) -> Split:
        """What may be learned from."""

    @property
    def content(self) -> tuple[Split, ...]:
        """The whole training part, with what is held out of it."""

    @property
    def fingerprint(self) -> str:
        """Hash of the content."""


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What frozen networks said of a view, kept on disk for the runs that ask again.

    Args:
        store: the folder that keeps them; none computes them in every run.
        dtype: type of the numbers on disk; with float32 a run ends as it would without a store, on a CPU to the last bit.
        top_k: keep of the logits the k most probable classes, the true class and the sum of the others; none keeps all. Of
            language models the k most probable tokens, with or without a store; none keeps hidden states, which give all.
        samples: of language models keep so many tokens drawn from what the teacher says, in place of the most probable.
        block: samples that a network is shown at a time, the last block padded; none for a micro-batch. Runs with another
            batch size find the same signals where this is the same.
    """

    store: str | None = None
    dtype: Literal["float32", "float16"] = "float32"
    top_k: int | None = None
    samples: int | None = None
    block: int | None = None

    def __post_init__(self) -> None:
        for key in ("top_k", "samples", "block"):
            value = getattr(self, key)
            check(value is None or value >= 1, f"signals.{key}", value, "at least 1, or null")
        check(not (self.top_k and self.samples), "signals.samples", self.samples, "null, or leave out signals.top_k")

    def attach(
        self,
        frozen: Speaker,
        role: str,
        data: Material,
        view: Mapping[str, Any],
        micro_batch: int,
        tell: Callable[[str], None],
    ) -> None:
        """Let a frozen network's signals of the training part be computed in blocks and kept on disk, as these settings say.

        Args:
            frozen: the network, which was told what it will be asked.
            role: its role in the run.
            data: the data.
            view: what is done to the samples, as plain values.
            micro_batch: samples it is shown at a time where `block` is not set.
            tell: called with a line for people when records cannot be written.

        Raises:
            UserError: when it does not give a field, or has no classes to choose the top k of.
        """
        frozen.block = self.block or (micro_batch if self.store else None)
        if self.store is None:
            return
        encodings = frozen.encodings(data.train.inputs.shape, self.dtype, self.top_k)
        device = frozen.network.device
        key = {
            "network": frozen.digest,
            "code": _code(frozen.network),
            "data": data.fingerprint,
            "shape": list(data.train.inputs.shape),
            "labelled": data.train.labels is not None,
            "view": dict(view),
            "block": frozen.block,
            "mixed": frozen.mixed,
            **frozen.key,
            **surroundings(device, frozen.libraries),
        }
        about = {"model": frozen.network.name, "data": data.name}
        samples = 1 + max(int(split.index.max()) for split in data.content)
        frozen.kept = Kept(role, Path(self.store), key, about, encodings, samples, len(data.train), tell)


def surroundings(device: torch.device, libraries: Sequence[str]) -> dict[str, Any]:
    """What the last bits of a network's answers depend on besides network and samples, as plain values."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "versions": {name: _version(name) for name in ("osmose", "torch", *libraries)},
    }


def _code(network: Model) -> str:
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
