"""Pictures: what is drawn where, read back from the file."""

import re

import numpy as np
import torch
from PIL import Image

from osmose.figures.accuracy import curve, draw_accuracy, steps_to
from osmose.figures.augmented import draw_augmented
from osmose.figures.phases import _spans, draw_phases
from osmose.figures.spread import draw_spread


def test_augmented_images_stand_below_their_originals(tmp_path):
    x = torch.zeros(3, 1, 4, 4)
    x[1] = 1.0
    draw_augmented(tmp_path / "a.png", x, {"turned": 1 - x, "blended": x[:1] + 0.5})
    grey = np.asarray(Image.open(tmp_path / "a.png").convert("L")).astype(int)
    height, width = grey.shape
    assert 0.4 < height / width < 1.2

    def has(values, top, bottom):
        """Whether the band of rows shows these greys, from left to right."""
        line = grey[int(height * (top + bottom) / 2)]
        return all(((line > value - 12) & (line < value + 12)).sum() > 20 for value in values)

    assert has((0, 255), 0, 1 / 3)
    assert has((0, 255), 1 / 3, 2 / 3)
    assert has((128,), 2 / 3, 1)


def test_colour_images(tmp_path):
    x = torch.zeros(2, 3, 4, 4)
    x[0, 0] = 1.0
    draw_augmented(tmp_path / "a.png", x, {})
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).reshape(-1, 3)
    assert ((pixels == (255, 0, 0)).all(1)).sum() > 100


LINES = [
    {"step": 10, "disagreement": 1.0, "invariance": 0.1, "student_phase": 0.0},
    {"step": 20, "disagreement": 2.0, "kl": 0.5, "student_phase": 0.6},
    {"step": 20, "heldout_accuracy": 50.0},
    {"step": 30, "kl": 0.4, "student_phase": 1.0},
    {"step": 40, "disagreement": 1.0, "student_phase": 0.0},
    {"step": 50, "kl": 0.3, "student_phase": 1.0},
]


def test_a_phase_is_one_span():
    assert _spans([line for line in LINES if "student_phase" in line], "student_phase") == [(10, 30), (40, 50)]


def test_losses_and_phases(tmp_path):
    draw_phases(
        tmp_path / "p.svg", LINES, {"kl": "student", "disagreement": "augmentor", "gone": "nobody"}, "student_phase"
    )
    text = (tmp_path / "p.svg").read_text()
    assert "student" in re.sub(r"<path.*?/>", "", text, flags=re.S)
    assert len(re.findall(r"fill: #e6e6e6", text)) == 2
    draw_phases(tmp_path / "empty.svg", [], {"kl": "student"}, "student_phase")
    assert (tmp_path / "empty.svg").stat().st_size > 1000


def test_steps_to_an_accuracy():
    found = curve(
        [{"step": 5, "loss": 1.0}, {"step": 10, "heldout_accuracy": 70.0}, {"step": 20, "heldout_accuracy": 80.0}]
    )
    assert found == [(10, 70.0), (20, 80.0)]
    assert (steps_to(60, found), steps_to(70.5, found), steps_to(80, found), steps_to(81, found)) == (10, 20, 20, None)


def test_a_line_for_every_method(tmp_path):
    methods = {
        "kd": [[(10, 70.0), (20, 80.0)], [(10, 72.0), (20, 81.0)]],
        "hard": [[(10, 75.0), (20, 85.0)]],
        "none": [],
    }
    draw_accuracy(tmp_path / "a.svg", methods)
    text = (tmp_path / "a.svg").read_text()
    assert len(re.findall(r'id="FillBetweenPolyCollection_\d+"', text)) == 2
    assert "kd" in text
    assert "none" not in re.sub(r"(fill|stroke): none", "", text)


def test_no_two_curves_look_alike(tmp_path):
    methods = {f"m{number}": [[(10, 70.0 + number), (20, 80.0)]] for number in range(25)}
    draw_accuracy(tmp_path / "a.svg", methods)
    looks = re.findall(
        r'<path d="M [^"]*" clip-path="[^"]*" style="(fill: none;[^"]*)"', (tmp_path / "a.svg").read_text()
    )
    assert len(looks) == len(set(looks)) == 25


def test_a_band_for_every_quantity(tmp_path):
    draws = {name: [torch.linspace(0, 1, 11, dtype=torch.float64) + step for step in range(3)] for name in "abcde"}
    draw_spread(tmp_path / "s.svg", [0, 5, 9], draws)
    text = (tmp_path / "s.svg").read_text()
    assert len(re.findall(r'id="FillBetweenPolyCollection_\d+"', text)) == 5
    assert not list(tmp_path.glob("*.part"))
