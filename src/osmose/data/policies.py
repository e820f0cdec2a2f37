"""TrivialAugment and AugMix for a batch in which every image draws operations of its own; the operations are torchvision's."""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from osmose import torchvision_ops
from osmose.data.counter_hash import below
from osmose.errors import missing_extra

CHAINS, DEPTH, SEVERITY = 3, 3, 3
"""AugMix's chains, longest chain and severity, out of 10, as published."""


class Operation(NamedTuple):
    """What may be done to an image.

    Attributes:
        apply: changes uint8 images [B, C, H, W], all by the same magnitude.
        magnitudes: those to draw from; one for an operation that has none.
        signed: whether a magnitude is negated half of the time.
    """

    apply: Callable[[Tensor, float], Tensor]
    magnitudes: Sequence[float] = (0.0,)
    signed: bool = False


def trivial_augment(images: Tensor, draws: Tensor) -> Tensor:
    """One operation of random strength on each image (TrivialAugment, wide space; arXiv 2103.10158).

    Args:
        images: uint8 [B, C, H, W].
        draws: int64 [2, B] random bits.

    Raises:
        UserError: when torchvision is not installed.
    """
    return _apply(wide_space(), images, *draws)


def augmix(images: Tensor, draws: Tensor) -> Tensor:
    """Each image blended with three chains of one to three mild operations (AugMix, arXiv 1912.02781; alpha 1).

    Args:
        images: uint8 [B, C, H, W].
        draws: int64 [24, B] random bits.

    Raises:
        UserError: when torchvision is not installed.
    """
    space = mild_space(*images.shape[2:])
    kept, *cuts, lengths = draws[0], draws[1], draws[2], draws[3:6]
    # Dirichlet(1, 1, 1) is the lengths of the pieces of a stick that is broken at two uniform places.
    first, second = (_unit(cut) for cut in cuts)
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    share = _unit(kept)
    mixed = share * images
    for chain, weight in enumerate((low, high - low, 1 - high)):
        changed = images
        for step in range(DEPTH):
            going_on = (below(lengths[chain], DEPTH) >= step).nonzero().flatten()
            place = 6 + 2 * (chain * DEPTH + step)
            changed = changed.clone()
            changed[going_on] = _apply(space, changed[going_on], *draws[place : place + 2, going_on])
        mixed = mixed + (1 - share) * weight * changed
    return mixed.to(torch.uint8)


DRAWS = {"trivial-augment": (trivial_augment, 2), "augmix": (augmix, 6 + 2 * CHAINS * DEPTH)}
"""The policies by name, and how many random numbers an image takes."""


@cache
def wide_space() -> tuple[Operation, ...]:
    """TrivialAugment's operations, with 31 strengths each."""
    do = _functional()
    nearest = partial(_geometry, do, "nearest")
    strength = _steps(0, 0.99, 31)
    return (
        Operation(lambda x, m: x),
        *nearest(strength, _steps(0, 32, 31), _steps(0, 32, 31), _steps(0, 135, 31)),
        *_enhancements(do, strength),
        Operation(lambda x, m: do.posterize(x, int(m)), [round(8 - step / 5) for step in range(31)]),
        *_tones(do, _steps(1, 0, 31)),
    )


@cache
def mild_space(height: int, width: int) -> tuple[Operation, ...]:
    """AugMix's operations on images of that size, with the strengths up to its severity."""
    do = _functional()
    bilinear = partial(_geometry, do, "bilinear")

    def up_to(most: float) -> list[float]:
        return _steps(0, most, 10)[:SEVERITY]

    return (
        *bilinear(up_to(0.3), up_to(width / 3), up_to(height / 3), up_to(30)),
        *_enhancements(do, up_to(0.9)),
        Operation(lambda x, m: do.posterize(x, int(m)), [round(4 - 4 * step / 9) for step in range(SEVERITY)]),
        *_tones(do, _steps(1, 0, 10)[:SEVERITY]),
    )


def _geometry(
    do: Any, interpolation: str, shear: list[float], right: list[float], down: list[float], turn: list[float]
) -> list[Operation]:
    from torchvision.transforms import InterpolationMode

    mode = InterpolationMode(interpolation)

    def move(x: Tensor, *, shear: tuple[float, float] = (0.0, 0.0), by: tuple[float, float] = (0.0, 0.0)) -> Tensor:
        moved: Tensor = do.affine(
            x,
            angle=0.0,
            translate=[int(part) for part in by],
            scale=1.0,
            shear=[math.degrees(math.atan(part)) for part in shear],
            interpolation=mode,
            center=[0.0, 0.0],
        )
        return moved

    return [
        Operation(lambda x, m: move(x, shear=(m, 0.0)), shear, signed=True),
        Operation(lambda x, m: move(x, shear=(0.0, m)), shear, signed=True),
        Operation(lambda x, m: move(x, by=(m, 0.0)), right, signed=True),
        Operation(lambda x, m: move(x, by=(0.0, m)), down, signed=True),
        Operation(lambda x, m: do.rotate(x, m, interpolation=mode), turn, signed=True),
    ]


def _enhancements(do: Any, strength: list[float]) -> list[Operation]:
    return [
        Operation(lambda x, m: do.adjust_brightness(x, 1 + m), strength, signed=True),
        Operation(lambda x, m: do.adjust_saturation(x, 1 + m), strength, signed=True),
        Operation(lambda x, m: do.adjust_contrast(x, 1 + m), strength, signed=True),
        Operation(lambda x, m: do.adjust_sharpness(x, 1 + m), strength, signed=True),
    ]


def _tones(do: Any, thresholds: list[float]) -> list[Operation]:
    return [
        Operation(lambda x, m: do.solarize(x, 255 * m), thresholds),
        Operation(lambda x, m: do.autocontrast(x)),
        Operation(lambda x, m: do.equalize(x)),
    ]


def _apply(space: Sequence[Operation], images: Tensor, which: Tensor, strength: Tensor) -> Tensor:
    """Each image changed by an operation of `space`; images that drew the same one at the same magnitude go together."""
    counts = torch.tensor([len(one.magnitudes) * (1 + one.signed) for one in space], device=images.device)
    chosen = below(which, len(space))
    codes = chosen * int(counts.max()) + below(strength, counts[chosen])
    changed = images.clone()
    for code in codes.unique().tolist():
        number, drawn = divmod(code, int(counts.max()))
        operation, rows = space[number], (codes == code).nonzero().flatten()
        magnitude = operation.magnitudes[drawn % len(operation.magnitudes)]
        if drawn >= len(operation.magnitudes):
            magnitude = -magnitude
        changed[rows] = operation.apply(images[rows], magnitude)
    return changed


def _unit(draw: Tensor) -> Tensor:
    """float32 [B, 1, 1, 1] in 0 to 1."""
    return (below(draw, 65537).float() / 65536)[:, None, None, None]


def _steps(first: float, last: float, count: int) -> list[float]:
    steps: list[float] = torch.linspace(first, last, count).tolist()
    return steps


def _functional() -> Any:
    torchvision_ops.install()
    try:
        from torchvision.transforms.v2 import functional
    except ModuleNotFoundError as error:
        raise missing_extra("view.policy needs", "vision") from error
    return functional
