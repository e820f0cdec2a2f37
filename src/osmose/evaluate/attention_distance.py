"""How far networks look: the mean attention distance of each layer (Dosovitskiy et al. 2021, figure 7; MOKD, figure 5)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osmose.data.split import Split
from osmose.data.views import Views
from osmose.errors import UserError
from osmose.models.chain import chain
from osmose.models.layout import Layout
from osmose.models.model import evaluating
from osmose.models.network import Network

_WEIGHTS = 2**24
"""Weights of attention that are held at a time, 64 MiB: a map of 56 x 56 places has ten million."""
_SHARPNESS = 8.0
"""Of the attention of feature maps: normalised queries and keys of a head of 64 channels score 8 times their cosine."""


def attention_distances(network: Network, split: Split, *, batch_size: int = 250) -> list[float]:
    """For each layer the mean distance, in pixels, between a place and those that it attends to, weighed by the attention.

    Of a transformer these are its own attentions between patches, over heads; tokens in front are left out. Of a network of
    feature maps, which has none, each layer's map attends to itself, as a head of 64 channels would whatever their number is:
    softmax(8 cos), of places less their mean over channels.

    Args:
        network: of the zoo, timm, or with layers `qkv` beside a number of heads.
        split: images.
        batch_size: images in one forward pass.

    Returns:
        A number a layer, in order; empty where the network has neither attention nor maps in layers of a known family that
        all run and give one tensor.
    """
    attention = {
        f"{name}.qkv": module
        for name, module in network.body.named_modules()
        if type(module).__name__.strip("_") == "Attention" and isinstance(getattr(module, "qkv", None), nn.Linear)
    }
    try:
        layers = [*attention] or chain(network)
    except UserError:
        return []
    network.listen(layers)
    front = getattr(network.body, "num_prefix_tokens", None)
    sums: list[float] = [0.0] * len(layers)
    with evaluating(network):
        for rows in torch.arange(len(split)).split(batch_size):
            images = Views.plain(split.inputs.read(rows).to(network.device))
            try:
                states = network(images).states
            except UserError:  # a layer gives several tensors
                states = {}
            if not states.keys() >= set(layers):
                network.forget()
                network.quiet()
                return []
            sides = network.prepare(images[:1]).shape[-2:]
            for place, path in enumerate(layers):
                state = states[path].float()
                layout = Layout.of(state, channels_last=network.channels_last, image=(sides[0], sides[1]), front=front)
                module = attention.get(path)
                right = layout.kind == "tokens" if module else layout.kind in ("map", "channels-last")
                if not right or layout.grid is None or len(state) != len(rows):  # windows are samples of their own
                    network.quiet()
                    return []
                asked, keys = _queries(layout.tokens(state), layout, module)
                sums[place] += len(rows) * _distance(asked, keys, layout.grid, (sides[0], sides[1]))
    network.quiet()
    return [total / len(split) for total in sums]


def _queries(tokens: Tensor, layout: Layout, attention: nn.Module | None) -> tuple[Tensor, Tensor]:
    """What the places of a grid ask and are asked by, [B, heads, N, E], in an attention layer or without one."""
    if attention is None:
        places = F.normalize(tokens - tokens.mean(-1, keepdim=True), dim=-1).unsqueeze(1)
        return places * _SHARPNESS * math.sqrt(layout.width), places
    heads = int(getattr(attention, "num_heads", getattr(attention, "heads", 0)))
    queries, keys, _ = tokens[:, layout.front :].unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    asks, asked = (getattr(attention, name, nn.Identity()) for name in ("q_norm", "k_norm"))
    return asks(queries), asked(keys)


def _distance(queries: Tensor, keys: Tensor, grid: tuple[int, int], sides: tuple[int, int]) -> float:
    """The mean over samples, heads and places, of queries and keys [B, heads, N, E] on a grid that spans the sides in pixels."""
    down, across = (
        torch.arange(count, device=queries.device) * (side / count) for count, side in zip(grid, sides, strict=True)
    )
    places = torch.cartesian_prod(down, across)
    samples, heads, count, width = queries.shape
    at_once = max(1, _WEIGHTS // (heads * count**2))  # samples
    rows = max(1, _WEIGHTS // (heads * count))  # places of one sample
    total = 0.0
    for some, asked in zip(queries.split(at_once), keys.split(at_once), strict=True):
        for block, here in zip(some.split(rows, dim=2), places.split(rows), strict=True):
            weights = (block @ asked.transpose(-1, -2) / math.sqrt(width)).softmax(-1)
            total += float((weights * torch.cdist(here, places)).sum(dtype=torch.float64))
    return total / (samples * heads * count)
