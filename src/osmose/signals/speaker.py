"""Networks that only speak: their answers computed in blocks, or read from disk."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from osmose.data.batch import Batch
from osmose.models.model import Model
from osmose.signals.encoding import Encoding
from osmose.signals.kept import Kept


class Speaker(ABC):
    """A network that never trains: evaluation mode, float32 answers, outside every method's parameters and checkpoints.

    Args:
        network: the network; set to evaluation mode and without parameter gradients, on `device`.
        device: where it runs.
        mixed: compute in bfloat16 where torch's autocast finds it safe; otherwise in float32, whatever runs around it.

    Attributes:
        block: a view's samples are computed so many at a time, the last block padded, because the last bits of an
            answer depend on the size of the batch it was computed in; None computes the batch as it comes.
        kept: what is on disk of its signals, and comes there; None: nothing.
        fields: what will be asked of each batch: what it said is held until all of them were.
    """

    libraries: ClassVar[tuple[str, ...]]
    """Packages, beside torch, whose versions may change what it says."""

    def __init__(self, network: Model, device: torch.device | str = "cpu", *, mixed: bool = False) -> None:
        self.network = network.requires_grad_(False).eval().to(device)
        self.mixed = mixed
        self.block: int | None = None
        self.kept: Kept | None = None
        self.fields: Collection[str] = ()
        if mixed or torch.device(device).type == "cuda":
            # The layout of the fast convolutions there; torch's types lack it.
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._batch: Batch | None = None
        self._held: dict[str, Tensor] = {}

    def expect(self, fields: Collection[str]) -> None:
        """Told once what will be asked of each batch.

        Raises:
            UserError: when the network does not give it.
        """
        self.fields = fields

    @abstractmethod
    def encodings(self, shape: tuple[int, ...], dtype: str, top_k: int | None) -> dict[str, Encoding]:
        """How each of `fields` is kept on disk.

        Args:
            shape: of one sample.
            dtype: of the numbers on disk.
            top_k: the most probable classes that are kept; None for all.

        Raises:
            UserError: when the network does not give a field, or has no classes to choose the top k of.
        """

    @abstractmethod
    def say(self, x: Tensor, fields: Iterable[str]) -> dict[str, Tensor]:
        """Fields of what the network says of x [n, ...], each [n, ...]."""

    @property
    def key(self) -> dict[str, Any]:
        """What its signals depend on besides network, data and view, as plain values."""
        return {}

    @cached_property
    def digest(self) -> str:
        """Of the network's weights and whatever else makes its answers."""
        return self.network.digest()

    @torch.no_grad()
    def signal(self, batch: Batch, field: str = "logits") -> Tensor:
        """What the network says of a batch, without gradients: from disk where it is kept, otherwise computed and kept there.

        Args:
            batch: a view of some samples.
            field: "logits", or another that the method's `reads` names.
        """
        if self.kept is not None and batch.view is not None:
            found = batch.signals.get(self.kept.role, {}).get(field)
            if found is None:  # the loader looks for a whole micro-batch, this may be a part of it
                found = self.kept.find(batch, field)
            if found is not None:
                return found
        said = self._held.pop(field, None) if self._batch is batch else None
        if said is None:
            self._held = self._in_blocks(batch.x, {field, *self.fields})
            said = self._held.pop(field)
        self._batch = batch if self._held else None
        return said if self.kept is None or batch.view is None else self.kept.keep(batch, field, said)

    def _in_blocks(self, x: Tensor, fields: Collection[str]) -> dict[str, Tensor]:
        if self.block is None:
            return self.say(x, fields)
        blocks = []
        for part in x.split(self.block):
            padding = self.block - len(part)
            whole = F.pad(part, (0, 0) * (part.dim() - 1) + (0, padding)) if padding else part
            blocks.append({name: values[: len(part)] for name, values in self.say(whole, fields).items()})
        return {name: torch.cat([block[name] for block in blocks]) for name in fields}


def teachers(roles: Iterable[str]) -> list[str]:
    """Those of some roles that are teachers', in order: "teacher1", "teacher2", ..."""
    return [role for role in roles if role.startswith("teacher")]
