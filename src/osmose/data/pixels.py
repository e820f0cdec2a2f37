"""Batched pixel operations in which every image has its own parameters and no image's result depends on another.

Only operations that round the same way wherever a value stands in a tensor are used; sums are of integers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def shift(images: Tensor, pad: int, top: Tensor, left: Tensor) -> Tensor:
    """Windows of the images' own size in the images padded with `pad` zeros on each side.

    Args:
        images: [B, C, H, W].
        pad: pixels added on each side.
        top, left: int64 [B] in 0 to 2 * pad, where the window starts in the padded image.
    """
    height, width = images.shape[2:]
    windows = F.pad(images, (pad, pad, pad, pad)).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(images), device=images.device), :, top, left]


def resize_box(
    images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: tuple[int, int] | None = None
) -> Tensor:
    """A box of each image stretched over a whole image, bilinear between pixel centres, in integer arithmetic.

    Args:
        images: uint8 [B, C, H, W].
        top, left, height, width: int64 [B], the box, which lies inside the image.
        size: height and width of what is made; None for those of the images.

    Returns:
        uint8 [B, C, height, width], rounded to nearest.
    """
    full_height, full_width = size or images.shape[2:]
    above, below, down = _between(top, height, full_height)
    before, behind, right = _between(left, width, full_width)
    down, right = down[:, None, :, None], right[:, None, None, :]
    lines = _rows(images, above) * (2 * full_height - down) + _rows(images, below) * down
    total = _columns(lines, before) * (2 * full_width - right) + _columns(lines, behind) * right
    whole = 4 * full_height * full_width
    return ((total + whole // 2) // whole).to(torch.uint8)


def affine(images: Tensor, angle: Tensor, shear: Tensor, zoom: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Images that were scaled, sheared, turned about their centre and then moved; bilinear, zeros outside.

    Args:
        images: uint8 [B, C, H, W].
        angle: float64 [B], degrees clockwise.
        shear: float64 [B], degrees by which vertical lines lean.
        zoom: float64 [B], above 1 enlarges.
        down, right: float64 [B], pixels.

    Returns:
        uint8 [B, C, H, W], rounded to nearest.
    """
    height, width = images.shape[2:]
    angle, shear, zoom, down, right = (
        part[:, None, None] for part in (angle.deg2rad(), shear.deg2rad(), zoom, down, right)
    )
    cos, sin, lean = (_steady(part) for part in (angle.cos(), angle.sin(), shear.tan()))
    y = torch.arange(height, device=images.device).double()[:, None] - (height - 1) / 2 - down
    x = torch.arange(width, device=images.device).double() - (width - 1) / 2 - right
    across, along = x * cos + y * sin, y * cos - x * sin
    across = across + along * lean
    grid = torch.stack([across / zoom * (2 / width), along / zoom * (2 / height)], dim=-1).float()
    moved = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved.round_().to(torch.uint8)


def luma(pixels: Tensor) -> Tensor:
    """The grey value of float [B, 3, H, W], as [B, 1, H, W] (ITU-R 601-2, the weights of torchvision); one channel is its own."""
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = pixels.chunk(3, dim=1)
    return 0.2989 * red + 0.587 * green + 0.114 * blue


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with black; `factor` [B, 1, 1, 1], 1 changes nothing."""
    return (pixels * factor).clamp_(0, 1)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with each image's mean grey (to 2**-16); `factor` [B, 1, 1, 1], 1 changes nothing."""
    grey = (luma(pixels) * 65535).round_().to(torch.int32)
    total = grey.sum(dim=(1, 2, 3), keepdim=True, dtype=torch.int64)
    mean = (total.double() / (65535 * grey[0].numel())).float()
    return (pixels * factor).add_(mean * (1 - factor)).clamp_(0, 1)


def saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey image; `factor` [B, 1, 1, 1], 1 changes nothing."""
    return (pixels * factor).add_(luma(pixels) * (1 - factor)).clamp_(0, 1)


def hue(pixels: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of HSV by `turn` [B, 1, 1, 1] of the full circle."""
    red, green, blue = pixels.chunk(3, dim=1)
    value, lowest = pixels.amax(1, keepdim=True), pixels.amin(1, keepdim=True)
    chroma = value - lowest
    span = torch.where(chroma > 0, chroma, 1)
    sixth = torch.where(value == green, (blue - red) / span + 2, (red - green) / span + 4)
    sixth = torch.where(value == red, (green - blue) / span, sixth) + 6 * turn
    k = torch.cat([sixth + 5, sixth + 3, sixth + 1], dim=1)
    k -= (k / 6).floor_().mul_(6)
    return value - torch.minimum(k, 4 - k).clamp_(0, 1).mul_(chroma)


def solarize(pixels: Tensor) -> Tensor:
    """Values of at least a half turned into what they lack of one."""
    return torch.where(pixels >= 0.5, 1 - pixels, pixels)


def blur(pixels: Tensor, weights: Tensor) -> Tensor:
    """Each image convolved along both axes with a symmetric kernel of its own; edges are repeated.

    Args:
        pixels: [B, C, H, W].
        weights: [B, R + 1], the kernel from its middle outwards.
    """
    for axis in (2, 3):
        reach = weights.shape[1] - 1
        places = torch.arange(pixels.shape[axis], device=pixels.device)
        total = pixels * weights[:, 0, None, None, None]
        for step in range(1, reach + 1):
            before = pixels.index_select(axis, (places - step).clamp(min=0))
            after = pixels.index_select(axis, (places + step).clamp(max=len(places) - 1))
            total = total + (before + after) * weights[:, step, None, None, None]
        pixels = total
    return pixels


def _steady(values: Tensor) -> Tensor:
    """Rounded to 2**-24: a tensor's last values may be computed by other code, which differs by less."""
    return (values * 2**24).round_() / 2**24


def _between(start: Tensor, length: Tensor, full: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `full` positions spread over `length` pixels from `start`: both neighbours and the second's weight.

    Returns:
        int64 [B, full] neighbours, and int32 [B, full] weights out of 2 * full.
    """
    place = (2 * torch.arange(full, device=start.device) + 1) * length[:, None] - full
    place = place.clamp(min=0)
    first = place // (2 * full)
    second = torch.minimum(first + 1, length[:, None] - 1)
    return first + start[:, None], second + start[:, None], (place % (2 * full)).to(torch.int32)


def _rows(images: Tensor, rows: Tensor) -> Tensor:
    return images.gather(2, rows[:, None, :, None].expand(-1, images.shape[1], -1, images.shape[3]))


def _columns(images: Tensor, columns: Tensor) -> Tensor:
    return images.gather(3, columns[:, None, None, :].expand(-1, images.shape[1], images.shape[2], -1))
