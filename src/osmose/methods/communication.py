"""What two networks need to exchange messages: each an encoder that speaks, and a decoder that listens (arXiv 2310.03188)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from osmose.errors import check
from osmose.models.layout import Layout

Level = Literal["low", "high"]
"""Behind which part of a network a state stands."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """What messages are, and what makes and reads them.

    Args:
        width: numbers of a message, for each token where states have tokens.
        depth: hidden layers of encoders and decoders; 0 are linear maps.
        norm: whether a message is normalised over its numbers (LayerNorm).
        shared: whether an encoder has one first layer for both levels, where their widths allow it, or one for each.
        joint: whether both networks have one encoder and one decoder, but for the layers that meet their own widths.
    """

    width: int = 64
    depth: int = 1
    norm: bool = True
    shared: bool = True
    joint: bool = False

    def __post_init__(self) -> None:
        least = 2 if self.norm else 1  # of one number a normalisation leaves nothing
        check(self.width >= least, "method.message.width", self.width, f"at least {least}")
        check(self.depth >= 0, "method.message.depth", self.depth, "at least 0")


class Communicator(nn.Module):
    """One network's encoder and decoder.

    The encoder takes states of both levels; where these have other widths, or are not `shared`, it has a first layer for each.
    The decoder gives states of the low level. Both work on each token by itself; messages have the tokens of `common`, and states
    of other layouts are averaged or interpolated, see `Layout.spread`.

    Args:
        layouts: of the network's states.
        common: the layout of the messages' tokens.
        message: settings.
        other: the other network's, which has the encoder and decoder of both; None gives this one its own.
    """

    def __init__(
        self, layouts: Mapping[Level, Layout], common: Layout, message: Message, other: "Communicator | None" = None
    ) -> None:
        super().__init__()
        self.layouts, self.common = dict(layouts), common
        width, low, high = message.width, layouts["low"].width, layouts["high"].width
        first = nn.Linear(low, width)
        one = message.shared and low == high
        self.first = nn.ModuleDict({"low": first, "high": first if one else nn.Linear(high, width)})
        self.encoder = nn.Sequential(
            *(layer for _ in range(message.depth) for layer in (nn.GELU(), nn.Linear(width, width))),
            nn.LayerNorm(width) if message.norm else nn.Identity(),
        )
        self.decoder = nn.Sequential(
            *(layer for _ in range(message.depth) for layer in (nn.Linear(width, width), nn.GELU())),
        )
        self.last = nn.Linear(width, low)
        if other:
            self.encoder, self.decoder = other.encoder, other.decoder

    def speak(self, states: Mapping[Level, Tensor]) -> dict[Level, Tensor]:
        """A message [B, tokens, width] for each of some states of this network, by level; all in one pass."""
        if not states:
            return {}
        layouts, first = self.layouts, self.first
        begun = [
            layouts[level].spread(first[level](layouts[level].tokens(state)), self.common)
            for level, state in states.items()
        ]
        messages: Tensor = self.encoder(torch.cat(begun))
        return dict(zip(states, messages.chunk(len(begun)), strict=True))

    def hear(self, messages: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Messages of any networks, by any names, as low states of this one; all in one pass."""
        if not messages:
            return {}
        low = self.layouts["low"]
        heard = self.last(self.decoder(torch.cat([*messages.values()])))
        return dict(zip(messages, low.state(self.common.spread(heard, low)).chunk(len(messages)), strict=True))
