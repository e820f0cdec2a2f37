"""Pixel operations against slow re-derivations, one pixel at a time."""

import colorsys
import importlib

import pytest
import torch

from osmose import torchvision_ops
from osmose.data import pixels as px


def grey(r, g, b):
    return 0.2989 * r + 0.587 * g + 0.114 * b


def clamp(value):
    return min(max(value, 0.0), 1.0)


@pytest.fixture
def pixels():
    x = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    x[0, :, 0, 0], x[0, :, 0, 1], x[0, :, 0, 2] = 0.0, 1.0, 0.5  # black, white, grey: no hue
    x[1, :, 0, 0] = torch.tensor([1.0, 0.0, 1.0])  # two channels share the maximum
    x[1, :, 0, 1] = torch.tensor([0.0, 1.0, 1.0])
    x[1, :, 0, 2] = torch.tensor([1.0, 1.0, 0.0])
    return x


def each_pixel(x, function):
    """`function(image number, r, g, b)` -> r, g, b for every pixel."""
    out = torch.empty_like(x, dtype=torch.float64)
    for i in range(x.shape[0]):
        for row in range(x.shape[2]):
            for column in range(x.shape[3]):
                out[i, :, row, column] = torch.tensor(function(i, *x[i, :, row, column].tolist()), dtype=torch.float64)
    return out


FACTORS = [0.2, 0.9, 1.0, 1.8]


def as_parameter(values):
    return torch.tensor(values)[:, None, None, None]


def test_brightness(pixels):
    expected = each_pixel(pixels, lambda i, *rgb: [clamp(c * FACTORS[i]) for c in rgb])
    torch.testing.assert_close(px.brightness(pixels, as_parameter(FACTORS)).double(), expected, atol=1e-6, rtol=0)


def test_contrast_is_about_the_mean_grey(pixels):
    means = [sum(grey(*p) for p in image.flatten(1).T.tolist()) / 30 for image in pixels]
    expected = each_pixel(pixels, lambda i, *rgb: [clamp(FACTORS[i] * c + (1 - FACTORS[i]) * means[i]) for c in rgb])
    torch.testing.assert_close(px.contrast(pixels, as_parameter(FACTORS)).double(), expected, atol=2e-5, rtol=0)


def test_saturation_blends_with_grey(pixels):
    expected = each_pixel(pixels, lambda i, *rgb: [clamp(FACTORS[i] * c + (1 - FACTORS[i]) * grey(*rgb)) for c in rgb])
    torch.testing.assert_close(px.saturation(pixels, as_parameter(FACTORS)).double(), expected, atol=1e-6, rtol=0)


def test_hue_turns_hsv(pixels):
    turns = [-0.5, -0.13, 0.0, 0.5]

    def turned(i, r, g, b):
        h, s, v = colorsys.rgb_to_hsv(r, g, b)
        return colorsys.hsv_to_rgb((h + turns[i]) % 1.0, s, v)

    torch.testing.assert_close(
        px.hue(pixels, as_parameter(turns)).double(), each_pixel(pixels, turned), atol=2e-6, rtol=0
    )


def test_luma(pixels):
    expected = each_pixel(pixels, lambda i, *rgb: [grey(*rgb)] * 3)
    torch.testing.assert_close(px.luma(pixels).double(), expected[:, :1], atol=1e-6, rtol=0)


def test_shift_moves_the_image_and_fills_with_zeros():
    images = torch.randint(1, 256, (9, 2, 4, 5), dtype=torch.uint8)
    top, left = torch.tensor([0, 0, 0, 2, 2, 2, 4, 4, 4]), torch.tensor([0, 2, 4] * 3)
    moved = px.shift(images, 2, top, left)
    for i in range(9):
        for row in range(4):
            for column in range(5):
                y, x = row + int(top[i]) - 2, column + int(left[i]) - 2
                inside = 0 <= y < 4 and 0 <= x < 5
                expected = images[i, :, y, x] if inside else torch.zeros(2, dtype=torch.uint8)
                assert torch.equal(moved[i, :, row, column], expected)


def test_resize_box_is_bilinear_between_pixel_centres():
    images = torch.randint(0, 256, (4, 2, 6, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    boxes = [(0, 0, 6, 7), (1, 2, 3, 4), (5, 6, 1, 1), (0, 3, 2, 4)]
    resized = px.resize_box(images, *(torch.tensor(side) for side in zip(*boxes, strict=True)))
    assert torch.equal(resized[0], images[0])

    def place(position, length, full):
        at = max((position + 0.5) * length / full - 0.5, 0.0)
        first = min(int(at), length - 1)
        return first, min(first + 1, length - 1), at - first

    for i, (top, left, height, width) in enumerate(boxes):
        box = images[i, :, top : top + height, left : left + width].double()
        for row in range(6):
            for column in range(7):
                y0, y1, down = place(row, height, 6)
                x0, x1, right = place(column, width, 7)
                value = (1 - down) * ((1 - right) * box[:, y0, x0] + right * box[:, y0, x1]) + down * (
                    (1 - right) * box[:, y1, x0] + right * box[:, y1, x1]
                )
                for got, wanted in zip(resized[i, :, row, column].tolist(), value.tolist(), strict=True):
                    assert abs(got - wanted) <= 0.5 + 1e-9


def test_affine_is_that_of_torchvision():
    torchvision_ops.install()
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    bilinear = importlib.import_module("torchvision.transforms").InterpolationMode.BILINEAR
    images = torch.randint(0, 256, (5, 3, 17, 22), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    cases = [(0, 0, 1, 0, 0), (30, 0, 1, 0, 0), (0, 20, 1, 0, 0), (-50, -10, 0.7, 3, -2), (140, 5, 1.6, -1, 4)]
    parts = [torch.tensor(part, dtype=torch.float64) for part in zip(*cases, strict=True)]
    angle, shear, zoom, down, right = parts
    found = px.affine(images, angle, shear, zoom, down, right)
    for number, (turn, lean, factor, below, beside) in enumerate(cases):
        expected = functional.affine(
            images[number].float(), angle=turn, translate=[beside, below], scale=factor, shear=[lean, 0.0],
            interpolation=bilinear,
        )  # fmt: skip
        assert (found[number] - expected).abs().max() <= 0.51
    assert torch.equal(found[0], images[0])
