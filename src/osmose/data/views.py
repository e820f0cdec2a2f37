"""Numbered views: what is done to a sample's image before a network sees it."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from osmose.data import pixels as px
from osmose.data.counter_hash import below, chance, counter_hash
from osmose.data.policies import DRAWS as POLICIES
from osmose.errors import UserError

_AFFINE_DRAWS, _POLICY_DRAWS = 11, 16
"""Where the numbers of their draws begin; those before are of crop, flip and colour."""


@dataclass(frozen=True, kw_only=True)
class Views:
    """How a sample's numbered view is made; the defaults are those of the transfer in arXiv 2310.17653.

    Each parameter is an integer hash of (seed, sample, view number): a sample looks the same in any batch, worker,
    process and device count. Colour distortion and grayscale leave images of one channel as they are.

    Args:
        crop: "none" keeps the whole image; "shift" pads with zeros and crops at a random place, "corners" at one of the four
            corners; "resized" crops a random box and resizes it (bilinear) to the image's size.
        pad: pixels added on each side by "shift" and "corners".
        scale: smallest and largest share of the area that "resized" crops; the aspect ratio is in 3/4 to 4/3, and a
            box longer than the image is cut.
        flip: probability of a horizontal flip.
        rotate: degrees that an image is turned by at most, either way.
        translate: share of its sides that it is moved by at most, either way.
        zoom: smallest and largest factor of its size.
        shear: degrees that its vertical lines lean by at most, either way.
        policy: "trivial-augment" (arXiv 2103.10158) or "augmix" (arXiv 1912.02781), with torchvision's operations.
        colour: probability of colour distortion: brightness, contrast, saturation, hue, in this order.
        colour_strength: s in the factors' range 1 - 0.8 s (not below 0) to 1 + 0.8 s and the hue's turn of up to 0.2 s.
        grayscale: probability of grayscale.
        seed: seed of the views, apart from the run's seed.
        count: an epoch cycles through so many views; None: a new view every epoch.
    """

    crop: Literal["none", "shift", "corners", "resized"] = "none"
    pad: int = 4
    scale: tuple[float, float] = (0.25, 1.0)
    flip: float = 0.5
    rotate: float = 0.0
    translate: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    policy: Literal["none", "trivial-augment", "augmix"] = "none"
    colour: float = 0.8
    colour_strength: float = 1.0
    grayscale: float = 0.2
    seed: int = 0
    count: int | None = None

    def __post_init__(self) -> None:
        for key, valid, rule in (
            ("crop", self.crop in ("none", "shift", "corners", "resized"), "none, shift, corners or resized"),
            ("pad", self.pad >= 0, "at least 0"),
            ("scale", 0 < self.scale[0] <= self.scale[1] <= 1, "two shares, 0 < smallest <= largest <= 1"),
            ("flip", 0 <= self.flip <= 1, "a probability"),
            ("rotate", 0 <= self.rotate <= 180, "degrees, 0 to 180"),
            ("translate", 0 <= self.translate <= 1, "a share, 0 to 1"),
            ("zoom", 0 < self.zoom[0] <= self.zoom[1] < math.inf, "two factors, 0 < smallest <= largest"),
            ("shear", 0 <= self.shear < 90, "degrees, 0 to below 90"),
            ("policy", self.policy == "none" or self.policy in POLICIES, "none, trivial-augment or augmix"),
            ("colour", 0 <= self.colour <= 1, "a probability"),
            ("colour_strength", 0 <= self.colour_strength <= 2.5, "between 0 and 2.5"),
            ("grayscale", 0 <= self.grayscale <= 1, "a probability"),
            ("count", self.count is None or self.count > 0, "at least 1, or null"),
        ):
            if not valid:
                raise UserError(f"view.{key} = {getattr(self, key)!r} is out of range: set it to {rule}")

    def number(self, epoch: int) -> int:
        """The view that `epoch` shows."""
        return epoch if self.count is None else epoch % self.count

    def without_effect(self, channels: int) -> tuple[str, ...]:
        """The settings that are on but leave images of so many channels as they are."""
        return tuple(key for key in ("colour", "grayscale") if channels != 3 and getattr(self, key) > 0)

    @staticmethod
    def plain(images: Tensor) -> Tensor:
        """uint8 images as float32 in [0, 1] and nothing else, for evaluation; numbers stay what they are."""
        return images.float().div_(255) if images.dtype == torch.uint8 else images

    def __call__(self, images: Tensor, index: Tensor, view: int) -> Tensor:
        """View number `view` of some samples.

        Args:
            images: uint8 [B, C, H, W]; float32 inputs, which are no pictures, have no views and are given back.
            index: int64 [B] sample numbers.
            view: number of the view.

        Returns:
            float32 [B, C, H, W] in [0, 1] on the device of `images`; a row depends on its own image and number alone.
        """
        if images.is_floating_point():
            return images
        index = index.to(images.device)
        numbers = torch.arange(11, device=index.device)[:, None]
        draws = counter_hash(self.seed, index, view, numbers)
        flip, top, left, area, aspect, colour, bright, contrast, saturation, hue, gray = draws
        if self.crop in ("shift", "corners"):
            places, apart = (2, 2 * self.pad) if self.crop == "corners" else (2 * self.pad + 1, 1)
            images = px.shift(images, self.pad, below(top, places) * apart, below(left, places) * apart)
        elif self.crop == "resized":
            height, width = boxes(area, aspect, self.scale, images.shape[2], images.shape[3])
            corner = below(top, images.shape[2] - height + 1), below(left, images.shape[3] - width + 1)
            images = px.resize_box(images, *corner, height, width)
        images = torch.where(each(chance(flip, self.flip)), images.flip(-1), images)
        if self._moves:
            images = self._move(images, counter_hash(self.seed, index, view, numbers[:5] + _AFFINE_DRAWS))
        if self.policy != "none":
            apply, count = POLICIES[self.policy]
            numbers = torch.arange(_POLICY_DRAWS, _POLICY_DRAWS + count, device=index.device)[:, None]
            images = apply(images, counter_hash(self.seed, index, view, numbers))

        x = self.plain(images)
        if x.shape[1] != 3:
            return x
        if self.colour:
            distorted = px.brightness(x, self._factor(bright))
            distorted = px.contrast(distorted, self._factor(contrast))
            distorted = px.saturation(distorted, self._factor(saturation))
            reach = 0.2 * self.colour_strength
            distorted = px.hue(distorted, each(spread(hue, -reach, reach)))
            x = torch.where(each(chance(colour, self.colour)), distorted, x)
        if self.grayscale:
            x = torch.where(each(chance(gray, self.grayscale)), px.luma(x), x)
        return x

    @property
    def _moves(self) -> bool:
        return bool(self.rotate or self.translate or self.shear or self.zoom != (1.0, 1.0))

    def _move(self, images: Tensor, draws: Tensor) -> Tensor:
        """The images under random affine transformations, from draws [5, B]."""
        turn, lean, zoom, down, right = draws
        height, width = images.shape[2:]
        return px.affine(
            images,
            angle=spread(turn, -self.rotate, self.rotate).double(),
            shear=spread(lean, -self.shear, self.shear).double(),
            zoom=spread(zoom, *self.zoom).double(),
            down=spread(down, -self.translate * height, self.translate * height).double(),
            right=spread(right, -self.translate * width, self.translate * width).double(),
        )

    def _factor(self, draw: Tensor) -> Tensor:
        """Factors [B, 1, 1, 1] of brightness, contrast or saturation."""
        reach = 0.8 * self.colour_strength
        return each(spread(draw, max(0.0, 1 - reach), 1 + reach))


def boxes(area: Tensor, aspect: Tensor, scale: tuple[float, float], height: int, width: int) -> tuple[Tensor, Tensor]:
    """Sides of random boxes in images of some size, int64 [B] each; float64 square roots round the same everywhere.

    Args:
        area: int64 [B] draws of the share of the area.
        aspect: int64 [B] draws of the aspect ratio, from 3/4 to 4/3.
        scale: smallest and largest share.
        height: of the images.
        width: of the images.
    """
    least, most = (int(share * 65536) for share in scale)
    pixels = (least + below(area, most - least + 1)) * (height * width)
    ratio = _aspects(aspect.device)[below(aspect, 257)]
    wide = ((pixels * ratio).double().sqrt() / 65536 + 0.5).long()
    high = ((pixels.double() / ratio).sqrt() + 0.5).long()
    return high.clamp(1, height), wide.clamp(1, width)


@cache
def _aspects(device: torch.device) -> Tensor:
    """257 aspect ratios from 3/4 to 4/3, each the same factor above the one before, in 1/65536."""
    return torch.tensor([round(65536 * (3 / 4) ** (1 - i / 128)) for i in range(257)], device=device)


def spread(draw: Tensor, least: float, most: float) -> Tensor:
    """float32 values at 65,537 even steps from `least` to `most`."""
    return least + below(draw, 65537).float() * ((most - least) / 65536)


def each(parameter: Tensor) -> Tensor:
    """A parameter of each image, shaped to broadcast over its pixels."""
    return parameter[:, None, None, None]
