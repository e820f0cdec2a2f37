"""Numbered crops: rows depend on their own sample alone; sizes, shares and frequencies; blur and solarization written out."""

import pytest
import torch
import torch.nn.functional as F

from osmose.data import pixels as px
from osmose.data.crops import Crops
from osmose.errors import UserError

INDEX = torch.arange(1000, 1064)


@pytest.fixture(params=[1, 3])
def images(request):
    return torch.randint(
        0, 256, (64, request.param, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def test_crops_do_not_depend_on_companions(images):
    crops = Crops(locals=3)
    whole = crops(images, INDEX, 3)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    for all_of_them, again in zip(whole, crops(images[order], INDEX[order], 3), strict=True):
        assert torch.equal(again, all_of_them[:, order])
    for size in (1, 7, 32):
        parts = [crops(i, n, 3) for i, n in zip(images.split(size), INDEX.split(size), strict=True)]
        for place, all_of_them in enumerate(whole):
            assert torch.equal(torch.cat([part[place] for part in parts], 1), all_of_them)


def test_more_crops_leave_the_first_as_they_are(images):
    few, many = Crops(locals=2)(images, INDEX, 0), Crops(locals=5)(images, INDEX, 0)
    assert torch.equal(few[0], many[0])
    assert torch.equal(few[1], many[1][:2])


def test_sizes_and_ranges(images):
    globals_, locals_ = Crops(locals=4)(images, INDEX, 0)
    assert globals_.shape == (2, 64, images.shape[1], 20, 24)
    assert locals_.shape == (4, 64, images.shape[1], round(20 * 3 / 7), round(24 * 3 / 7))
    for crops in (globals_, locals_):
        assert crops.dtype == torch.float32
        assert crops.min() >= 0
        assert crops.max() <= 1
    (only,) = Crops(locals=0, global_size=9)(images, INDEX, 0)
    assert only.shape[-2:] == (9, 9)
    assert Crops(global_size=224).sizes((256, 256)) == ((224, 224), (96, 96))  # the paper's


def test_views_samples_and_crops_differ(images):
    (zero,), (one,) = (Crops(locals=0)(images, INDEX, view) for view in (0, 1))
    assert not torch.equal(zero, one)
    assert not torch.equal(zero[0], zero[1])
    assert not torch.equal(Crops(locals=0, seed=1)(images, INDEX, 0)[0], zero)
    assert Crops(count=3).number(7) == 1


PLAIN = {"flip": 0.0, "colour": 0.0, "grayscale": 0.0, "blur": (0.0, 0.0, 0.0), "solarize": (0.0, 0.0, 0.0)}


def test_a_crop_of_everything_is_the_image(images):
    """No box is smaller than the image where its share is 1 and the image is square."""
    square = images[..., :20]
    crops = Crops(**PLAIN, locals=0, globals=40, global_scale=(1.0, 1.0))(square, INDEX, 0)[0]
    same = (crops == square / 255).flatten(2).all(-1)
    assert same.any()  # where the drawn aspect ratio is 1
    assert crops.shape == (40, 64, *square.shape[1:])


def test_shares_of_the_area():
    """Of an image whose pixels are their own places, a crop's corners tell its box."""
    down = torch.arange(200)[:, None].expand(200, 200)
    image = torch.stack([down, down.T]).to(torch.uint8).expand(500, 2, 200, 200)
    crops = Crops(**PLAIN, globals=1, locals=1, local_size=50, global_scale=(0.4, 0.6), local_scale=(0.05, 0.25))
    for found, (least, most) in zip(crops(image, torch.arange(500), 0), [(0.4, 0.6), (0.05, 0.25)], strict=True):
        one = found[0] * 255
        high = one[:, 0, -1, 0] - one[:, 0, 0, 0] + 1
        wide = one[:, 1, 0, -1] - one[:, 1, 0, 0] + 1
        shares = high * wide / 200**2
        assert shares.min() > least - 0.03
        assert shares.max() < most + 0.03
        assert shares.std() > 0.03
        ratios = wide / high
        assert 0.68 < ratios.min() < 0.85 < 1.15 < ratios.max() < 1.47


def test_frequencies_of_the_three_kinds_of_crops():
    """Solarization with probability 1 of one kind turns every bright pixel of that kind, and none of the others."""
    bright = torch.full((300, 1, 10, 10), 204, dtype=torch.uint8)  # 0.8
    for kind in range(3):
        chances = tuple(float(kind == one) for one in range(3))
        crops = Crops(**{**PLAIN, "solarize": chances}, globals=3, locals=2)(bright, torch.arange(300), 0)
        turned = [(crops[0][0] < 0.5).all(), (crops[0][1:] < 0.5).all(), (crops[1] < 0.5).all()]
        assert [bool(one) for one in turned] == [one == kind for one in range(3)]
    some = Crops(**{**PLAIN, "solarize": (0.0, 0.2, 0.0)})(bright, torch.arange(300), 0)[0][1]
    assert 0.12 < (some < 0.5).float().mean() < 0.28


def test_blur_is_a_convolution_with_each_images_gaussian():
    images = torch.rand(3, 2, 9, 11, generator=torch.Generator().manual_seed(0))
    sigmas = [0.3, 1.0, 2.0]
    halves = []
    for sigma, image, blurred in zip(
        sigmas, images, px.blur(images, torch.stack([_half(sigma) for sigma in sigmas])), strict=True
    ):
        half = _half(sigma)
        halves.append(half)
        kernel = torch.cat([half.flip(0)[:-1], half])
        padded = F.pad(image[None], (6, 6, 6, 6), mode="replicate").transpose(0, 1)
        wanted = F.conv2d(padded, torch.outer(kernel, kernel)[None, None])[:, 0]
        torch.testing.assert_close(blurred, wanted, rtol=0, atol=1e-6)
    crops = Crops(**{**PLAIN, "blur": (1.0, 1.0, 1.0), "flip": 0.0}, blur_sigma=(2.0, 2.0))
    plain = Crops(**PLAIN)
    pixels = torch.randint(0, 256, (3, 1, 9, 11), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for blurred, sharp in zip(crops(pixels, torch.arange(3), 0), plain(pixels, torch.arange(3), 0), strict=True):
        wanted = px.blur(sharp.flatten(0, 1), _half(2.0).expand(sharp.shape[0] * 3, -1)).view_as(sharp)
        torch.testing.assert_close(blurred, wanted, rtol=0, atol=1e-6)


def test_only_images_that_are_blurred_cost_a_blur(images, monkeypatch):
    blurred, blur = [], px.blur
    monkeypatch.setattr(px, "blur", lambda pixels, kernels: blurred.append(len(pixels)) or blur(pixels, kernels))
    Crops(**{**PLAIN, "blur": (1.0, 0.0, 0.0)})(images, INDEX, 0)
    assert blurred == [64, 0], "every first global crop, and no local one"


def _half(sigma):
    weights = torch.exp(-(torch.arange(7.0) ** 2) / (2 * sigma**2))
    return weights / (weights[0] + 2 * weights[1:].sum())


def test_solarization_is_torchvisions():
    torchvision = pytest.importorskip("osmose.torchvision_ops")
    torchvision.install()
    from torchvision.transforms.v2 import functional

    pixels = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(px.solarize(pixels), functional.solarize(pixels, 0.5), rtol=0, atol=0)


def _even(colour, count=2000):
    return torch.tensor(colour, dtype=torch.uint8)[None, :, None, None].expand(count, -1, 4, 4)


def _between(values, least, most):
    """Whether values fill a range evenly."""
    assert values.min() >= least - 1e-3
    assert values.max() <= most + 1e-3
    quarters = torch.histc(values, 4, least, most) / values.numel()
    assert quarters.min() > 0.2
    assert quarters.max() < 0.3


@pytest.mark.parametrize("place", range(4))
def test_each_jitter_fills_its_range(place):
    """Of an image of one colour each change alone tells its factor; the hue, from red, by turns of the circle."""
    reach = (0.4, 0.4, 0.2, 0.1)
    alone = tuple(reach[place] if place == one else 0.0 for one in range(4))
    colour = [(90, 110, 130), (90, 110, 130), (90, 110, 130), (200, 100, 100)][place]
    crops = Crops(**{**PLAIN, "colour": 1.0}, jitter=alone, locals=1, local_size=2)
    for found in crops(_even(colour), torch.arange(2000), 0):
        red, green, blue = (found[:, :, channel, 0, 0].flatten() * 255 for channel in range(3))
        if place == 0:
            factors = red / 90
            torch.testing.assert_close(green / 110, factors, rtol=1e-4, atol=0)
        elif place in (1, 2):  # of one colour the mean grey is the grey of each pixel
            grey = 0.2989 * 90 + 0.587 * 110 + 0.114 * 130
            factors = (blue - grey) / (130 - grey)
        else:
            factors = (green - blue) / 100 / 6
            torch.testing.assert_close(torch.maximum(green, red), red, rtol=0, atol=1e-3)  # a tenth stays beside red
        _between(factors, *((-0.1, 0.1) if place == 3 else (1 - reach[place], 1 + reach[place])))


def test_colour_changes_come_in_the_order_of_their_names():
    """Brightness, contrast, saturation and hue one after another, of factors that one image tells for each change alone."""
    pixels = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain = Crops(**PLAIN, globals=1)
    sharp = plain(pixels, torch.arange(3), 0)[0][0]
    both = Crops(**{**PLAIN, "colour": 1.0}, globals=1, jitter=(0.4, 0.4, 0.2, 0.1))(pixels, torch.arange(3), 0)[0][0]

    def factor(place, colour):
        alone = tuple(reach if place == one else 0.0 for one, reach in enumerate((0.4, 0.4, 0.2, 0.1)))
        found = Crops(**{**PLAIN, "colour": 1.0}, globals=1, jitter=alone)(_even(colour, 3), torch.arange(3), 0)[0][0]
        return found[:, :, :1, :1].double() * 255

    grey = 0.2989 * 90 + 0.587 * 110 + 0.114 * 130
    bright = factor(0, (90, 110, 130))[:, :1] / 90
    contrast, saturation = ((factor(one, (90, 110, 130))[:, 2:] - grey) / (130 - grey) for one in (1, 2))
    turned = factor(3, (200, 100, 100))
    turn = (turned[:, 1:2] - turned[:, 2:]) / 100 / 6
    x = px.contrast(px.brightness(sharp, bright.float()), contrast.float())
    wanted = px.hue(px.saturation(x, saturation.float()), turn.float())
    torch.testing.assert_close(both, wanted, rtol=0, atol=1e-3)


def test_how_often_images_are_flipped_distorted_grey_and_blurred():
    pixels = torch.randint(0, 256, (1000, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain = Crops(**PLAIN, globals=3, locals=2)(pixels, torch.arange(1000), 0)
    wanted = {"flip": 0.5, "colour": 0.8, "grayscale": 0.2}
    kinds = {"blur": (0.7, 0.1, 0.4), "solarize": (0.3, 0.2, 0.6)}
    for key, chance in (wanted | kinds).items():
        crops = Crops(**{**PLAIN, key: chance}, globals=3, locals=2)(pixels, torch.arange(1000), 0)
        each = chance if key in kinds else (chance,) * 3
        for place, share in zip(((0, 0), (0, slice(1, 3)), (1, slice(0, 2))), each, strict=True):
            size, numbers = place
            same = (crops[size][numbers] == plain[size][numbers]).flatten(-3).all(-1)
            assert 1 - same.float().mean() == pytest.approx(share, abs=0.05), (key, place)
    flipped = Crops(**{**PLAIN, "flip": 1.0}, globals=3, locals=2)(pixels, torch.arange(1000), 0)
    grey = Crops(**{**PLAIN, "grayscale": 1.0}, globals=3, locals=2)(pixels, torch.arange(1000), 0)
    for size in range(2):
        torch.testing.assert_close(flipped[size], plain[size].flip(-1), rtol=0, atol=0)
        luma = (plain[size] * torch.tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(2, keepdim=True)
        torch.testing.assert_close(grey[size], luma.expand_as(grey[size]), rtol=0, atol=1e-6)


def test_the_defaults_are_the_papers():
    """Multi-crop of the paper and its public code, spec 3.3."""
    crops = Crops()
    assert (crops.globals, crops.locals, crops.global_scale, crops.local_scale) == (2, 8, (0.25, 1.0), (0.05, 0.25))
    assert (crops.flip, crops.colour, crops.jitter, crops.grayscale) == (0.5, 0.8, (0.4, 0.4, 0.2, 0.1), 0.2)
    assert (crops.blur, crops.solarize, crops.blur_sigma) == ((1.0, 0.1, 0.5), (0.0, 0.2, 0.0), (0.1, 2.0))
    assert crops.sizes((224, 224)) == ((224, 224), (96, 96))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"globals": 0}, "view.globals"),
        ({"local_scale": (0.3, 0.1)}, "view.local_scale"),
        ({"jitter": (0.4, 0.4, 0.2, 0.9)}, "view.jitter"),
        ({"blur": (1.0, 2.0, 0.0)}, "view.blur"),
        ({"blur_sigma": (0.0, 1.0)}, "view.blur_sigma"),
        ({"count": 0}, "view.count"),
    ],
)
def test_mistakes(settings, said):
    with pytest.raises(UserError, match=f"key '{said}' is"):
        Crops(**settings)
