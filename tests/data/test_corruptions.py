"""Corruptions: what each does to a picture, the same each time, and what names stand for."""

import sys

import numpy as np
import pytest

from osmose.data.corruptions import IMAGENET_C, Corruption, check_available, parse
from osmose.errors import UserError

GREY = np.full((32, 32, 3), 128, np.uint8)
PICTURE = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)


def test_translate_moves_both_ways_along_both_axes():
    image = np.zeros((9, 9, 1), np.uint8)
    image[4, 4] = 200
    found = [np.argwhere(Corruption("translate", 3)(image, seed)[..., 0]) for seed in range(200)]
    places = {tuple(place[0]) for place in found}
    assert places == {(1, 1), (1, 7), (7, 1), (7, 7)}
    assert Corruption("translate", 3)(image, 0).sum() == 200


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_impulse_noise_hits_the_published_share(severity):
    share = {1: 0.03, 2: 0.06, 3: 0.09, 4: 0.17, 5: 0.27}[severity]
    grey = np.full((100, 100, 3), 128, np.uint8)
    noisy = Corruption("impulse_noise", severity)(grey, 0)
    assert set(np.unique(noisy)) == {0, 128, 255}
    assert abs((noisy != 128).mean() - share) < 0.01
    assert abs((noisy == 255).sum() / (noisy != 128).sum() - 0.5) < 0.05


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_gaussian_noise_has_the_published_deviation(severity):
    pytest.importorskip("corrupt_tta", exc_type=ImportError)
    grey = np.full((100, 100, 3), 128, np.uint8)
    noisy = Corruption("gaussian_noise", severity)(grey, 0).astype(float)
    inside = noisy[(noisy > 0) & (noisy < 255)] if severity == 1 else noisy
    expected = 255 * {1: 0.08, 2: 0.12, 3: 0.18, 4: 0.26, 5: 0.38}[severity]
    draws = np.random.default_rng(1).normal(128, expected, 1_000_000).clip(0, 255)
    assert abs(inside.std() / draws.std() - 1) < 0.02


@pytest.mark.parametrize("name", IMAGENET_C)
def test_the_same_seed_gives_the_same_picture(name):
    pytest.importorskip("corrupt_tta", exc_type=ImportError)
    corruption = Corruption(name, 4)
    state = np.random.get_state()[1].copy()
    first = corruption(PICTURE, 7)
    np.random.seed(3)
    assert (corruption(PICTURE, 7) == first).all()
    assert first.dtype == np.uint8
    assert first.shape == PICTURE.shape
    assert (first != PICTURE).any()
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    corruption(PICTURE, 8)
    assert (np.random.get_state()[1] == before).all()
    assert state.shape == before.shape
    random = {
        "contrast",
        "brightness",
        "saturate",
        "jpeg_compression",
        "pixelate",
        "gaussian_blur",
        "defocus_blur",
        "zoom_blur",
    }
    assert (corruption(PICTURE, 8) == first).all() == (name in random)


@pytest.mark.parametrize("name", IMAGENET_C)
def test_one_channel_stays_one_channel(name):
    pytest.importorskip("corrupt_tta", exc_type=ImportError)
    found = Corruption(name, 3)(PICTURE[..., :1], 0)
    assert found.shape == (32, 32, 1)
    assert found.dtype == np.uint8


def test_names():
    assert parse(["fog:3", "snow"]) == [Corruption("fog", 3), *(Corruption("snow", at) for at in range(1, 6))]
    assert len(parse(["all"])) == 95
    assert parse(["all:2"]) == [Corruption(name, 2) for name in IMAGENET_C]
    assert parse(["fog:1", "fog"]) == [Corruption("fog", at) for at in range(1, 6)]
    assert parse([]) == []


def test_mistakes():
    with pytest.raises(UserError, match=r"^unknown corruption 'foog': did you mean 'fog'\?$"):
        parse(["foog"])
    for text in ("fog:6", "fog:", "fog:hard"):
        with pytest.raises(UserError, match=f"^corruption '{text}' has no severity 1 to 5: write for example fog:3$"):
            parse([text])


def test_a_missing_package_is_named_before_the_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "corrupt_tta", None)
    check_available(parse(["translate", "impulse_noise"]))
    with pytest.raises(UserError, match="the extra 'robustness': pip install"):
        check_available(parse(["fog:1"]))


def test_a_missing_system_library_is_named(monkeypatch, tmp_path):
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    monkeypatch.setitem(sys.modules, "corrupt_tta", sys)
    with pytest.raises(UserError, match=r"^opencv cannot be loaded \(libGL\.so\.1: .*\): apt install libgl1"):
        check_available(parse(["fog:1"]))
