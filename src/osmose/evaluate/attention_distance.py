"""How far networks look: the mean attention distance of each layer (Dosovitskiy et al. 2021, figure 7; MOKD, figure 5)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osmose.data.split import Split
from osmose.data.views import Views
from osmose.errors import UserError
from osmose.evaluate.predict import evaluating
from osmose.models.chain import chain
from osmose.models.layout import Layout
from osmose.models.network import Network


def attention_distances(network: Network, split: Split, *, batch_size: int = 250) -> list[float]:
    """For each layer the mean distance, in pixels, between a place and those that it attends to, weighed by the attention.

    Of a transformer these are its own attentions between patches, over heads; tokens in front are left out. Of a network of
    feature maps, which has none, each layer's map attends to itself, softmax(z z^T / sqrt(E)), every place normalised over
    channels.

    Args:
        network: of the zoo, timm, or with layers `qkv` beside a number of heads.
        split: images.
        batch_size: images in one forward pass.

    Returns:
        A number a layer, in order; empty where the network has neither attention nor maps in layers of a known family.
    """
    attention = {
        name: int(heads)
        for name, module in network.body.named_modules()
        if isinstance(getattr(module, "qkv", None), nn.Linear)
        and (heads := getattr(module, "num_heads", getattr(module, "heads", 0)))
    }
    try:
        layers = [f"{name}.qkv" for name in attention] or chain(network)
    except UserError:
        return []
    network.listen(layers)
    sums: list[float] = [0.0] * len(layers)
    with evaluating(network):
        for rows in torch.arange(len(split)).split(batch_size):
            images = Views.plain(split.inputs.read(rows).to(network.device))
            states = network(images).states
            side = network.prepare(images).shape[-1]
            for place, path in enumerate(layers):
                if attention:
                    heads = attention[path.removesuffix(".qkv")]
                    found = _of_attention(states[path], heads, side)
                else:
                    found = _of_map(states[path], side, channels_last=network.channels_last)
                if found is None:
                    network.quiet()
                    return []
                sums[place] += found * len(rows)
    network.quiet()
    return [total / len(split) for total in sums]


def _of_attention(qkv: Tensor, heads: int, side: int) -> float | None:
    queries, keys, _ = qkv.float().unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    layout = Layout.of(qkv)
    if layout.grid is None:
        return None
    return _distance(queries[:, :, layout.front :], keys[:, :, layout.front :], layout.grid, side)


def _of_map(state: Tensor, side: int, *, channels_last: bool) -> float | None:
    layout = Layout.of(state, channels_last=channels_last)
    if layout.kind not in ("map", "channels-last"):
        return None
    assert layout.grid is not None
    tokens = F.layer_norm(layout.tokens(state.float()), (layout.width,)).unsqueeze(1)
    return _distance(tokens, tokens, layout.grid, side)


def _distance(queries: Tensor, keys: Tensor, grid: tuple[int, int], side: int) -> float:
    """The mean over samples, heads and places, of queries and keys [B, heads, N, E] on a grid that spans `side` pixels."""
    weights = (queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])).softmax(-1)
    down, across = (torch.arange(count, device=weights.device) * (side / count) for count in grid)
    places = torch.cartesian_prod(down, across)
    distances = torch.cdist(places, places)
    return float((weights * distances).sum(-1).mean())
