"""Numbered views of many crops: a few that show most of an image, and smaller ones that show little (multi-crop)."""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from osmose.data import pixels as px
from osmose.data.counter_hash import below, chance, counter_hash
from osmose.data.views import boxes, each, spread
from osmose.errors import UserError, check

_DRAWS = 16
"""Random numbers of a crop."""
_SIGMAS = 257
"""How many widths of blur there are."""


@dataclass(frozen=True, kw_only=True)
class Crops:
    """How a sample's crops are made; the defaults are those of MOKD, whose augmentations are DINO's (arXiv 2104.14294).

    Each parameter is an integer hash of (seed, sample, view number, crop), so that a sample's crops are the same in any batch,
    worker, process and device count. Boxes are resized by bilinear interpolation. Images of one channel have no saturation,
    hue or grayscale.

    Args:
        globals: crops that show most of an image.
        locals: crops that show little of it.
        global_size: their side in pixels; none takes the images' own.
        local_size: the side of local crops; none takes 3/7 of the global ones', 96 of 224.
        global_scale: smallest and largest share of the area that global crops show; the aspect ratio is in 3/4 to 4/3.
        local_scale: the same of local crops.
        flip: probability of a horizontal flip.
        colour: probability of colour distortion.
        jitter: largest change of brightness, contrast, saturation (as factors) and hue (of the full circle).
        grayscale: probability of grayscale.
        blur: probability of Gaussian blur of the first global crop, the other global ones, and local ones.
        blur_sigma: its smallest and largest deviation in pixels.
        solarize: probability of solarization, of the same three.
        seed: seed of the crops, apart from the run's seed.
        count: an epoch cycles through so many views; none: a new view every epoch.
    """

    globals: int = 2
    locals: int = 8
    global_size: int | None = None
    local_size: int | None = None
    global_scale: tuple[float, float] = (0.25, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.25)
    flip: float = 0.5
    colour: float = 0.8
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    grayscale: float = 0.2
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: tuple[float, float, float] = (0.0, 0.2, 0.0)
    seed: int = 0
    count: int | None = None

    def __post_init__(self) -> None:
        shares = "two shares, 0 < smallest <= largest <= 1"
        probabilities = "three probabilities"
        least, most = self.blur_sigma
        for key, valid, rule in (
            ("globals", self.globals >= 1, "at least 1"),
            ("locals", self.locals >= 0, "at least 0"),
            ("global_size", self.global_size is None or self.global_size >= 1, "at least 1, or null"),
            ("local_size", self.local_size is None or self.local_size >= 1, "at least 1, or null"),
            ("global_scale", 0 < self.global_scale[0] <= self.global_scale[1] <= 1, shares),
            ("local_scale", 0 < self.local_scale[0] <= self.local_scale[1] <= 1, shares),
            ("flip", 0 <= self.flip <= 1, "a probability"),
            ("colour", 0 <= self.colour <= 1, "a probability"),
            ("jitter", all(0 <= j <= 1 for j in self.jitter) and self.jitter[3] <= 0.5, "changes from 0 to 1, hue to 0.5"),
            ("grayscale", 0 <= self.grayscale <= 1, "a probability"),
            ("blur", all(0 <= p <= 1 for p in self.blur), probabilities),
            ("blur_sigma", 0 < least <= most <= 16, "two deviations, 0 < smallest <= largest <= 16"),
            ("solarize", all(0 <= p <= 1 for p in self.solarize), probabilities),
            ("count", self.count is None or self.count > 0, "at least 1, or null"),
        ):  # fmt: skip
            check(valid, f"view.{key}", getattr(self, key), rule)
        if self.globals + self.locals < 2:
            raise UserError("view.globals is 1 and view.locals 0: a crop needs another to be compared with")

    def number(self, epoch: int) -> int:
        """The view that `epoch` shows."""
        return epoch if self.count is None else epoch % self.count

    def without_effect(self, channels: int) -> tuple[str, ...]:
        """The settings that are on but leave images of so many channels as they are."""
        return ("grayscale",) if channels != 3 and self.grayscale else ()

    def sizes(self, image_size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of global and of local crops of images of some size."""
        height, width = (self.global_size, self.global_size) if self.global_size else image_size
        own = (max(1, round(height * 3 / 7)), max(1, round(width * 3 / 7)))
        return (height, width), (self.local_size, self.local_size) if self.local_size else own

    def __call__(self, images: Tensor, index: Tensor, view: int) -> tuple[Tensor, ...]:
        """The crops of view number `view` of some samples.

        Args:
            images: uint8 [B, C, H, W].
            index: int64 [B] sample numbers.
            view: number of the view.

        Returns:
            float32 in [0, 1] on the device of `images`: global crops [G, B, C, h, w], and local ones [L, B, C, h', w'] where
            there are any; what stands at [g, b] depends on its own image and number alone.
        """
        sizes = self.sizes((images.shape[2], images.shape[3]))
        crops = [self._crops(images, index, view, range(self.globals), self.global_scale, sizes[0])]
        if self.locals:
            numbers = range(self.globals, self.globals + self.locals)
            crops.append(self._crops(images, index, view, numbers, self.local_scale, sizes[1]))
        return tuple(crops)

    def _crops(
        self,
        images: Tensor,
        index: Tensor,
        view: int,
        numbers: range,
        scale: tuple[float, float],
        size: tuple[int, int],
    ) -> Tensor:
        """The crops of these numbers and one size, all in one pass: float32 [numbers, B, C, h, w]."""
        index = index.to(images.device)
        draws = torch.arange(_DRAWS, device=index.device)[:, None, None]
        crops = torch.arange(numbers.start, numbers.stop, device=index.device)[:, None]
        hashed = counter_hash(self.seed, index, view, draws + crops * _DRAWS).flatten(1)
        flip, top, left, area, aspect, colour, bright, contrast, saturation, hue, gray, blur, sigma, solar, *_ = hashed
        images = images.repeat(len(numbers), 1, 1, 1)
        height, width = boxes(area, aspect, scale, images.shape[2], images.shape[3])
        corner = below(top, images.shape[2] - height + 1), below(left, images.shape[3] - width + 1)
        boxed = px.resize_box(images, *corner, height, width, size)
        x = torch.where(each(chance(flip, self.flip)), boxed.flip(-1), boxed).float().div_(255)
        coloured = x.shape[1] == 3
        if self.colour:
            factors = [each(spread(draw, 1 - reach, 1 + reach)) for draw, reach in
                       zip((bright, contrast, saturation), self.jitter, strict=False)]  # fmt: skip
            distorted = px.contrast(px.brightness(x, factors[0]), factors[1])
            if coloured:
                distorted = px.saturation(distorted, factors[2])
                distorted = px.hue(distorted, each(spread(hue, -self.jitter[3], self.jitter[3])))
            x = torch.where(each(chance(colour, self.colour)), distorted, x)
        if self.grayscale and coloured:
            x = torch.where(each(chance(gray, self.grayscale)), px.luma(x), x)
        if any(self.blur):
            kernels = _kernels(*self.blur_sigma, x.device)[below(sigma, _SIGMAS)]
            x = _blurred(x, kernels, self._chances(blur, self.blur, numbers))
        if any(self.solarize):
            x = torch.where(each(self._chances(solar, self.solarize, numbers)), px.solarize(x), x)
        return x.unflatten(0, (len(numbers), -1))

    def _chances(self, hashed: Tensor, probabilities: tuple[float, float, float], numbers: range) -> Tensor:
        """True with the probability of the first global, another global or a local crop."""
        which = [0 if number == 0 else 1 if number < self.globals else 2 for number in numbers]
        rows = hashed.view(len(which), -1)
        return torch.cat([chance(row, probabilities[one]) for row, one in zip(rows, which, strict=True)])


def _blurred(x: Tensor, kernels: Tensor, on: Tensor) -> Tensor:
    """Those images blurred that are `on` [B]."""
    if x.is_cuda:  # to know which they are the host would have to wait
        return torch.where(each(on), px.blur(x, kernels), x)
    rows = on.nonzero().flatten()
    return x.index_copy(0, rows, px.blur(x[rows], kernels[rows]))


@dataclass(frozen=True, kw_only=True)
class TwoCrops(Crops):
    """Two global crops of a sample, and no local ones; see `Crops`."""

    locals: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.globals == 2, "view.globals", self.globals, "2, which this method compares")
        check(self.locals == 0, "view.locals", self.locals, "0, as this method has no use for local crops")


@cache
def _kernels(least: float, most: float, device: torch.device) -> Tensor:
    """Gaussian kernels of evenly spaced deviations, from their middle outwards to three of the largest."""
    reach = math.ceil(3 * most)
    kernels = []
    for number in range(_SIGMAS):
        sigma = least + (most - least) * number / (_SIGMAS - 1)
        weights = [math.exp(-(step**2) / (2 * sigma**2)) for step in range(reach + 1)]
        total = weights[0] + 2 * sum(weights[1:])
        kernels.append([round(weight / total * 2**24) / 2**24 for weight in weights])
    return torch.tensor(kernels, device=device)
