"""Networks that only speak."""

from collections.abc import Collection
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from osmose.data.batch import Batch
from osmose.models.network import STATES, Network, Outputs
from osmose.signals.kept import Kept


class Frozen:
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

    def __init__(self, network: Network, device: torch.device | str = "cpu", *, mixed: bool = False) -> None:
        self.network = network.requires_grad_(False).eval().to(device)
        self.mixed = mixed
        self.block: int | None = None
        self.kept: Kept | None = None
        self.fields: Collection[str] = ()
        if mixed:
            # The layout of the fast bfloat16 convolutions; torch's types lack it.
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._batch: Batch | None = None
        self._held: dict[str, Tensor] = {}

    def expect(self, fields: Collection[str]) -> None:
        """Told once what will be asked of each batch, states of layers among it.

        Raises:
            UserError: when the network has no such layer.
        """
        self.fields = fields
        self.network.listen(name.removeprefix(STATES) for name in fields if name.startswith(STATES))

    @cached_property
    def digest(self) -> str:
        """Of the network's weights and preprocessing."""
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
            outputs = self._in_blocks(batch.x)
            self._held = {name: _given(outputs, name) for name in {field, *self.fields}}
            said = self._held.pop(field)
        self._batch = batch if self._held else None
        return said if self.kept is None or batch.view is None else self.kept.keep(batch, field, said)

    def __call__(self, x: Tensor) -> Outputs:
        """What the network says of x [n, ...], in float32; differentiable in x."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.mixed):
            outputs: Outputs = self.network(x)
        return outputs.float()

    def _in_blocks(self, x: Tensor) -> Outputs:
        if self.block is None:
            return self(x)
        blocks = []
        for part in x.split(self.block):
            padding = self.block - len(part)
            blocks.append(self(F.pad(part, (0, 0) * (part.dim() - 1) + (0, padding)) if padding else part)[: len(part)])
        return blocks[0] if len(blocks) == 1 else Outputs.cat(blocks)


def _given(outputs: Outputs, field: str) -> Tensor:
    values = outputs.field(field)
    assert values is not None, "asked only of networks that give it"
    return values.contiguous()  # as it would come from disk: sums over another layout differ in the last bits
