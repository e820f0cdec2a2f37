"""A trained language model made narrower: of its width it keeps what has the largest weights."""

import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from osmose.errors import UserError, check
from osmose.models.language import layers_of

WIDTHS = ("intermediate_size", "num_attention_heads", "hidden_size")
"""Keys of a configuration that a trained model can be made smaller in, in this order."""
_Cut = tuple[str, int, int]
"""A tensor by name, one of its dimensions, and how many of its entries belong to one unit."""


class _Untold(Exception):
    """The weights do not tell which of them belong to a unit."""


@torch.no_grad()
def narrow(body: Any, key: str, wanted: Any, name: str) -> nn.Module:
    """The model with fewer units: neurons of its layers, heads of its attention with their keys and values, or channels.

    Of the units of a layer, or of the channels of the whole model, those are kept whose weights are the largest: by the geometric
    mean, over the matrices that a unit has a part in, of its share of a matrix's sum of squares; biases, norms and matrices of
    zeros have no say. Dimensions are found by what the smaller configuration makes smaller, and the result is compared with the
    model whose other units are zero.

    Args:
        body: a causal language model of transformers, left as it is.
        key: one of `WIDTHS`.
        wanted: its new value.
        name: how the user calls the model.

    Raises:
        UserError: for a value that is no smaller number, heads that do not share keys evenly, or a model whose weights do not
            tell which belong to a unit.
    """
    old = getattr(body.config, key, wanted)
    check(isinstance(wanted, int) and 1 <= wanted <= old, f"{key} of '{name}'", wanted, f"a number from 1 to {old}")
    if wanted == getattr(body.config, key, None):
        return body
    try:
        return _narrowed(body, key, *_smaller(body.config, key, wanted, name), layers_of(body, name)[0])
    except _Untold:
        raise UserError(
            f"the weights of '{name}' ({type(body).__name__}) do not tell which belong to one of {key}: leave {key} out, or use "
            f"fresh:{name}"
        ) from None


def _narrowed(body: Any, key: str, config: Any, units: int, kept: int, layers: str) -> nn.Module:
    """The model of a smaller configuration with `kept` of so many units."""
    from transformers import AutoModelForCausalLM

    try:
        made: nn.Module = AutoModelForCausalLM.from_config(config, dtype=body.dtype).eval()
    except (ValueError, RuntimeError, TypeError) as error:
        raise _Untold from error
    weights, shapes = body.state_dict(), {path: one.shape for path, one in made.state_dict().items()}
    smaller, emptied = dict(weights), {path: one.clone() for path, one in weights.items()}
    channels = key == "hidden_size"
    for cuts in _together(weights, shapes, units, kept, None if channels else layers):
        chosen = _largest([weights[path] for path, *_ in cuts], cuts, units, kept)
        dropped = torch.ones(units, dtype=torch.bool).index_fill_(0, chosen, False).nonzero().flatten()
        for path, dimension, block in cuts:
            smaller[path] = smaller[path].index_select(dimension, _entries(chosen, block))
            emptied[path].index_fill_(dimension, _entries(dropped, block), 0)
    made.load_state_dict(smaller)
    if not channels and not _same(made, body, emptied):  # channels that are zero still count in a norm's mean
        raise _Untold
    return made


def _smaller(config: Any, key: str, wanted: int, name: str) -> tuple[Any, int, int]:
    """The configuration, and how many units there were and are."""
    if not hasattr(config, key):
        raise _Untold
    changed, old = copy.deepcopy(config), getattr(config, key)
    setattr(changed, key, wanted)
    if key == "hidden_size":
        changed.head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if key != "num_attention_heads":
        return changed, old, wanted
    groups = getattr(config, "num_key_value_heads", None) or old
    each = old // groups
    check(wanted % each == 0, f"{key} of '{name}'", wanted, f"a multiple of {each}, which share keys and values")
    changed.head_dim = getattr(config, "head_dim", None) or config.hidden_size // old
    if hasattr(config, "num_key_value_heads"):
        changed.num_key_value_heads = wanted // each
    return changed, groups, wanted // each


def _together(
    weights: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], units: int, kept: int, layers: str | None
) -> Iterable[list[_Cut]]:
    """Dimensions in which the same units are kept: those of a layer below the path `layers`, or where it is None all."""
    found: dict[str, list[_Cut]] = defaultdict(list)
    for path, one in weights.items():
        if path not in shapes or one.dim() != len(shapes[path]):
            raise _Untold
        changed = [place for place in range(one.dim()) if one.shape[place] != shapes[path][place]]
        for place in changed:
            block, rest = divmod(one.shape[place], units)
            if rest or shapes[path][place] != kept * block or (layers is None and (block > 1 or len(changed) > 1)):
                raise _Untold
            within = "" if layers is None else path.removeprefix(f"{layers}.").partition(".")[0]
            found[within].append((path, place, block))
    return found.values()


def _largest(tensors: Sequence[Tensor], cuts: Sequence[_Cut], units: int, kept: int) -> Tensor:
    """The units with the largest weights, in their order."""
    score = torch.zeros(units, dtype=torch.float64)
    seen = set()
    for one, (_, dimension, block) in zip(tensors, cuts, strict=True):
        place = (one.data_ptr(), dimension)  # of tied matrices one
        squares = one.double().square().movedim(dimension, 0).reshape(units, block, -1).sum((1, 2)).cpu()
        if one.dim() >= 2 and place not in seen and bool(squares.any()):
            score += (squares / squares.sum()).log()
        seen.add(place)
    return score.topk(kept).indices.sort().values


def _entries(units: Tensor, block: int) -> Tensor:
    """The places along a dimension of units of `block` entries each."""
    return (units[:, None] * block + torch.arange(block)).flatten()


def _same(made: Any, body: Any, emptied: Mapping[str, Tensor]) -> bool:
    """Whether both models say the same, in float32."""
    whole = copy.deepcopy(body)
    whole.load_state_dict(emptied)
    tokens = torch.arange(10)[None] % body.config.vocab_size
    ours, theirs = (copy.deepcopy(one).float()(tokens, use_cache=False).logits for one in (made, whole))
    return torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))
