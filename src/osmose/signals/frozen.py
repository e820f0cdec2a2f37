"""Networks of images that only speak."""

from collections.abc import Collection, Iterable
from typing import ClassVar

import torch
from torch import Tensor

from osmose.errors import UserError, check
from osmose.models.network import Network, Outputs
from osmose.signals.encoding import Dense, Encoding, TopK
from osmose.signals.speaker import Speaker


class Frozen(Speaker):
    """A network of images that never trains; see `Speaker`."""

    network: Network
    libraries: ClassVar[tuple[str, ...]] = ("torchvision", "timm", "pillow")

    def expect(self, fields: Collection[str]) -> None:
        """Told once which fields of `Outputs` will be asked of each batch, states of layers among them.

        Raises:
            UserError: when the network has no such layer.
        """
        super().expect(fields)
        self.network.listen_for(fields)

    def encodings(self, shape: tuple[int, ...], dtype: str, top_k: int | None) -> dict[str, Encoding]:
        """All numbers of each field, or of the logits the k highest."""
        said = self.network.tried(shape)
        encodings: dict[str, Encoding] = {}
        for name in self.fields:
            values = said.field(name)
            if values is None:
                raise UserError(f"'{self.network.name}' gives no {name} to keep: leave them out of signals")
            encodings[name] = Dense(values.shape[1:], dtype)
        if top_k is not None and "logits" in encodings:
            classes = self.network.num_classes
            check(top_k < classes, "signals.top_k", top_k, f"below the number of classes, {classes}")
            encodings["logits"] = TopK(top_k, classes, dtype)
        return encodings

    def say(self, x: Tensor, fields: Iterable[str]) -> dict[str, Tensor]:
        """Fields of `Outputs`."""
        outputs = self(x)
        return {name: _given(outputs, name) for name in fields}

    def __call__(self, x: Tensor) -> Outputs:
        """What the network says of x [n, ...], in float32; differentiable in x."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.mixed):
            outputs: Outputs = self.network(x)
        return outputs.float()


def _given(outputs: Outputs, field: str) -> Tensor:
    values = outputs.field(field)
    assert values is not None, "asked only of networks that give it"
    return values.contiguous()  # as it would come from disk: sums over another layout differ in the last bits
