"""Numbered views: rows depend on their own sample alone; frequencies and ranges; what is left unchanged."""

import dataclasses

import pytest
import torch

from osmose.data.views import Views
from osmose.errors import UserError


@pytest.fixture
def images():
    return torch.randint(0, 256, (64, 3, 12, 14), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


INDEX = torch.arange(1000, 1064)


@pytest.mark.parametrize(
    "settings",
    [{"crop": crop} for crop in ("none", "shift", "corners", "resized")]
    + [{"rotate": 30.0, "translate": 0.2, "zoom": (0.8, 1.3), "shear": 10.0}],
    ids=str,
)
def test_a_row_does_not_depend_on_its_companions(images, settings):
    views = Views(**settings)
    whole = views(images, INDEX, 3)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(views(images[order], INDEX[order], 3), whole[order])
    for size in (1, 7, 32):
        parts = [views(i, n, 3) for i, n in zip(images.split(size), INDEX.split(size), strict=True)]
        assert torch.equal(torch.cat(parts), whole)


def test_a_row_does_not_depend_on_threads():
    # large enough that torch divides the work
    large = torch.randint(0, 256, (2, 3, 300, 300), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    views, threads = Views(crop="resized", colour=1.0), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = views(large, INDEX[:2], 0)
        torch.set_num_threads(2)
        two = views(large, INDEX[:2], 0)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one, two)
    assert torch.equal(views(large[1:], INDEX[1:2], 0), one[1:])


def test_views_do_not_draw_from_the_global_generator(images):
    state = torch.get_rng_state()
    Views(crop="resized")(images, INDEX, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_view_sample_and_seed_change_the_view(images):
    views = Views(crop="shift")
    first = views(images, INDEX, 0)
    for other in (views(images, INDEX, 1), views(images, INDEX + 64, 0), Views(crop="shift", seed=1)(images, INDEX, 0)):
        changed = (other != first).flatten(1).any(1)
        assert changed.double().mean() > 0.8


def test_values_are_float32_in_the_unit_interval(images):
    x = Views(crop="resized", colour=1.0, colour_strength=2.0)(images, INDEX, 0)
    assert x.dtype == torch.float32
    assert x.shape == images.shape
    assert x.min() >= 0
    assert x.max() <= 1


def test_flip_alone_mirrors_half_of_the_samples():
    images = torch.randint(0, 256, (4000, 1, 2, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x = Views(flip=0.3)(images, torch.arange(4000), 0)
    plain = images.float() / 255
    same = (x == plain).flatten(1).all(1)
    mirrored = (x == plain[..., [2, 1, 0]]).flatten(1).all(1)
    assert (same | mirrored).all()
    assert abs((mirrored & ~same).double().mean().item() - 0.3) < 0.04


def test_nothing_on_is_the_plain_image(images):
    off = Views(flip=0.0, colour=0.0, grayscale=0.0)
    assert torch.equal(off(images, INDEX, 5), images.float() / 255)
    assert torch.equal(Views.plain(images), images.float() / 255)


def test_grayscale_and_colour_have_their_probability(images):
    images = images[:1].expand(4000, -1, -1, -1)[:, :, :2, :2]
    gray = Views(flip=0.0, colour=0.0)(images, torch.arange(4000), 0)
    share = (gray[:, 0] == gray[:, 1]).flatten(1).all(1).double().mean().item()
    assert abs(share - 0.2) < 4 * (0.2 * 0.8 / 4000) ** 0.5
    distorted = Views(flip=0.0, grayscale=0.0)(images, torch.arange(4000), 0)
    share = (distorted != images.float() / 255).flatten(1).any(1).double().mean().item()
    assert abs(share - 0.8) < 4 * (0.2 * 0.8 / 4000) ** 0.5


def test_brightness_factor_is_uniform_over_its_range():
    # on a grey image contrast, saturation and hue do nothing, so x / grey is the brightness factor
    images = torch.full((4000, 3, 1, 1), 51, dtype=torch.uint8)
    x = Views(colour=1.0, grayscale=0.0)(images, torch.arange(4000), 0)
    factor = (x[:, 0, 0, 0] / 0.2).double()
    assert factor.min() >= 0.2 - 1e-3
    assert factor.max() <= 1.8 + 1e-3
    assert abs(factor.mean().item() - 1) < 4 * (1.6**2 / 12 / 4000) ** 0.5
    assert abs(factor.var().item() - 1.6**2 / 12) < 0.02


def test_one_channel_is_left_alone_by_colour_and_says_so():
    gray = torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(Views(flip=0.0)(gray, INDEX, 0), gray.float() / 255)
    assert Views().without_effect(1) == ("colour", "grayscale")
    assert Views(colour=0.0).without_effect(1) == ("grayscale",)
    assert Views().without_effect(3) == ()


def test_shift_reaches_every_offset_and_no_other():
    images = torch.zeros(2000, 1, 9, 9, dtype=torch.uint8)
    images[:, :, 4, 4] = 255
    x = Views(crop="shift", pad=2, flip=0.0)(images, torch.arange(2000), 0)
    places = set(map(tuple, x[:, 0].nonzero()[:, 1:].tolist()))
    assert places == {(row, column) for row in range(2, 7) for column in range(2, 7)}


def test_corners_are_the_four_farthest_shifts():
    images = torch.zeros(400, 1, 9, 9, dtype=torch.uint8)
    images[:, :, 4, 4] = 255
    x = Views(crop="corners", pad=3, flip=0.0)(images, torch.arange(400), 0)
    places = x.flatten(1).argmax(1)
    assert set(places.tolist()) == {9 * row + column for row in (1, 7) for column in (1, 7)}
    assert min(places.unique(return_counts=True)[1]) > 70


@pytest.mark.parametrize(
    ("settings", "reach"),
    [
        ({"rotate": 40.0}, "angle"),
        ({"shear": 20.0}, "shear"),
        ({"zoom": (0.5, 2.0)}, "zoom"),
        ({"translate": 0.25}, "move"),
    ],
)
def test_affine_parameters_are_uniform_and_the_others_rest(images, settings, reach, monkeypatch):
    seen = {}
    monkeypatch.setattr("osmose.data.views.px.affine", lambda images, **given: seen.update(given) or images)
    big = torch.zeros(3000, 1, 12, 14, dtype=torch.uint8)
    Views(**settings)(big, torch.arange(3000), 0)
    rest = {"angle": 0.0, "shear": 0.0, "zoom": 1.0, "down": 0.0, "right": 0.0}
    ranges = {"angle": (-40, 40), "shear": (-20, 20), "zoom": (0.5, 2.0), "down": (-3, 3), "right": (-3.5, 3.5)}
    moved = {"down", "right"} if reach == "move" else {reach}
    for name, values in seen.items():
        if name not in moved:
            assert (values == rest[name]).all()
            continue
        low, high = ranges[name]
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert abs(values.mean().item() - (low + high) / 2) < 0.03 * (high - low)


def test_resized_boxes_keep_area_and_aspect():
    # images of the two coordinates: the box's sides are read off the corners
    side = 128
    line = torch.arange(side, dtype=torch.uint8)
    images = torch.stack([line[:, None].expand(side, side), line.expand(side, side)])[None].expand(500, -1, -1, -1)
    x = Views(crop="resized", flip=0.0, scale=(0.25, 0.5))(images, torch.arange(500), 0) * 255
    height, width = x[:, 0, -1, 0] - x[:, 0, 0, 0] + 1, x[:, 1, 0, -1] - x[:, 1, 0, 0] + 1
    area, aspect = height * width / side**2, width / height
    assert 0.24 < area.min() < 0.27
    assert 0.48 < area.max() < 0.51
    assert 0.72 < aspect.min() < 0.78
    assert 1.28 < aspect.max() < 1.37
    assert abs(area.mean() - 0.375) < 0.015
    assert abs(aspect.log().mean()) < 0.035
    assert x[:, 0, 0, 0].max() > 40  # boxes begin anywhere
    assert x[:, 1, 0, 0].max() > 40


def test_number_cycles_through_count():
    assert [Views(count=3).number(epoch) for epoch in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert [Views().number(epoch) for epoch in (0, 5, 90)] == [0, 5, 90]


@pytest.mark.parametrize(
    ("key", "value"),
    [("crop", "centre"), ("flip", 1.5), ("scale", (0.0, 1.0)), ("scale", (0.8, 0.5)), ("pad", -1), ("count", 0),
     ("colour", -0.1), ("colour_strength", 3.0), ("grayscale", 2.0)],
)  # fmt: skip
def test_a_setting_out_of_range_is_named(key, value):
    with pytest.raises(UserError, match=rf"view\.{key} = .*: set it to "):
        Views(**{key: value})


def test_every_field_is_documented():
    for field in dataclasses.fields(Views):
        assert f"\n        {field.name}: " in Views.__doc__
