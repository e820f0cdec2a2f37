"""TrivialAugment and AugMix against torchvision's own, operation by operation, and against a plain loop over images."""

import pytest
import torch

from osmose import torchvision_ops
from osmose.data.policies import DRAWS, augmix, mild_space, trivial_augment, wide_space
from osmose.data.views import Views

torchvision_ops.install()
v2 = pytest.importorskip("torchvision.transforms.v2")

IMAGES = torch.randint(0, 256, (6, 3, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
INDEX = torch.arange(500)

WIDE = ["Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness",
        "Posterize", "Solarize", "AutoContrast", "Equalize"]  # fmt: skip
MILD = WIDE[1:]


def bits(*shape, seed=0):
    """int64 of 64 random bits."""
    generator = torch.Generator().manual_seed(seed)
    high, low = (torch.randint(-(2**31), 2**31, shape, generator=generator) for _ in range(2))
    return high * 2**32 + (low & 0xFFFFFFFF)


@pytest.mark.parametrize(
    ("ours", "names", "theirs", "bins", "kept"),
    [
        (lambda: wide_space(), WIDE, v2.TrivialAugmentWide(), 31, 31),
        (lambda: mild_space(20, 24), MILD, v2.AugMix(), 10, 3),
    ],
    ids=["trivial-augment", "augmix"],
)
def test_every_operation_and_strength_is_that_of_torchvision(ours, names, theirs, bins, kept):
    assert set(names) == set(theirs._AUGMENTATION_SPACE)
    for name, operation in zip(names, ours(), strict=True):
        magnitudes, signed = theirs._AUGMENTATION_SPACE[name]
        values = magnitudes(bins, 20, 24)
        assert operation.signed == signed
        assert len(operation.magnitudes) == (1 if values is None else kept)
        for position, magnitude in enumerate(operation.magnitudes):
            for sign in (1, -1) if signed else (1,):
                value = 0.0 if values is None else float(values[position]) * sign
                expected = theirs._apply_image_or_video_transform(
                    IMAGES, name, value, interpolation=theirs.interpolation, fill=theirs._fill
                )
                found = operation.apply(IMAGES, magnitude * sign)
                assert torch.equal(found, expected), (name, magnitude, sign)


def test_each_image_gets_one_operation_and_all_are_as_likely():
    images = IMAGES[:1].expand(500, -1, -1, -1)
    changed = trivial_augment(images, bits(2, 500))
    space = wide_space()
    possible = [one.apply(IMAGES[:1], m * sign) for one in space for m in one.magnitudes
                for sign in ((1, -1) if one.signed else (1,))]  # fmt: skip
    table = torch.cat(possible).flatten(1)
    assert all((row == table).all(1).any() for row in changed.flatten(1))
    same = (changed == images).flatten(1).all(1).double().mean()
    # Identity, and strengths of zero: 1/14 and 9/14 * 1/31, and posterize with all 8 bits or by a threshold of 255
    assert 0.06 < same < 0.2


@pytest.mark.parametrize("policy", list(DRAWS))
@pytest.mark.parametrize("channels", [1, 3])
def test_rows_do_not_depend_on_their_companions(policy, channels):
    apply, count = DRAWS[policy]
    images, draws = IMAGES[:, :channels].repeat(4, 1, 1, 1), bits(count, 24)
    whole = apply(images, draws)
    assert whole.dtype == torch.uint8
    assert (whole != images).any()
    for size in (1, 5):
        rows = torch.arange(24).split(size)
        assert torch.equal(torch.cat([apply(images[part], draws[:, part]) for part in rows]), whole)


def test_augmix_against_a_plain_loop():
    draws = bits(24, 6, seed=3)
    found = augmix(IMAGES, draws)
    space = mild_space(20, 24)
    upper = lambda value, n: ((int(value) >> 32) & 0xFFFFFFFF) * n >> 32  # noqa: E731
    for number, image in enumerate(IMAGES):
        share, *cuts = (upper(draws[k, number], 65537) / 65536 for k in range(3))
        low, high = sorted(cuts)
        mixed = share * image.double()
        for chain, weight in enumerate((low, high - low, 1 - high)):
            changed = image[None]
            for step in range(1 + upper(draws[3 + chain, number], 3)):
                which, strength = draws[6 + 2 * (3 * chain + step) :, number][:2]
                operation = space[upper(which, len(space))]
                strengths = [*operation.magnitudes, *([-m for m in operation.magnitudes] if operation.signed else [])]
                changed = operation.apply(changed, strengths[upper(strength, len(strengths))])
            mixed += (1 - share) * weight * changed[0]
        assert (found[number] - mixed).abs().max() <= 1


def test_augmix_keeps_what_no_operation_changes():
    black = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
    views = Views(policy="augmix", flip=0.0)(black, torch.arange(40), 0)
    # solarize alone turns black into white, at its strongest threshold it does not: 255 and above stay
    assert (views == 0).flatten(1).all(1).double().mean() > 0.5


@pytest.mark.parametrize("policy", list(DRAWS))
def test_as_numbered_views(policy):
    images = IMAGES.repeat(8, 1, 1, 1)
    views = Views(policy=policy, flip=0.0, colour=0.0, grayscale=0.0)
    index = torch.arange(48)
    first = views(images, index, 0)
    assert first.dtype == torch.float32
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(views(images[7:9], index[7:9], 0), first[7:9])
    assert ((views(images, index, 1) != first).flatten(1).any(1).double().mean()) > 0.6
