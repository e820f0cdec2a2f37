"""The page of a comparison, from logits that are written here."""

import json
import math
import re

import pytest
import torch

from osmose.cli import main
from osmose.comparison import compare
from osmose.errors import UserError
from osmose.report import report_comparison

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
CLASSES = ["ant", "bee", "<cat>", "dog"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Three models on 40 samples: "good" is right on 32, "poor" on 20, "other" on 20 of which "poor" has ten wrong."""
    folder = tmp_path_factory.mktemp("comparison")
    labels = torch.arange(40) % 4
    right = {"good": range(32), "poor": range(20), "other": range(10, 30)}
    for name, places in right.items():
        answers = torch.tensor(
            [int(labels[place]) if place in places else (int(labels[place]) + 1) % 4 for place in range(40)]
        )
        table = arrow.table({"label": labels.numpy(), "logits": torch.eye(4)[answers].tolist()})
        parquet.write_table(table.replace_schema_metadata({"classes": json.dumps(CLASSES)}), folder / f"{name}.parquet")
    names = [f"logits:{folder / name}.parquet" for name in right]
    numbers = compare(names, data=None, student=names[1], classes=["bee"], output=folder / "page")
    return numbers, folder / "page"


def test_it_says_what_was_counted(compared, read_page):
    text = read_page((compared[1] / "report.html").read_text()).text
    everything = " ".join(text)
    assert "Teachers for poor, best first" in everything
    assert "By what they know of bee and the student does not" in everything
    row = text.index("1", text.index("teacher"))  # of the ranking: good knows three of the bees, and 12 of 40 samples
    assert text[row : row + 6] == ["1", "good", "7.50", "30.00", "0.00", "+30.00"]
    pair = text.index("good", text.index("half of the flips"))
    assert text[pair : pair + 6] == ["good", "poor", "30.00", "0.00", "+30.00", "70.0"]


def test_its_figures_hold_every_pair(compared):
    numbers, folder = compared
    text = (folder / "report.html").read_text()
    square = text[text.index("What each knows") : text.index("Strong teachers")]
    written = re.findall(r">(\d+\.\d)</text>", square)
    expected = [
        f"{pair['positive_flips']:.1f}"
        for teacher in ("good", "poor", "other")
        for student in ("good", "poor", "other")
        for pair in numbers["pairs"]
        if (pair["teacher"], pair["student"]) == (teacher, student)
    ]
    assert written == expected
    strong = text[text.index("Strong teachers") : text.index("How it spreads")]
    dots = [part[: part.index("matplotlib.axis_1")].count("<use") for part in strong.split('id="PathCollection_1"')[1:]]
    assert dots == [6, 4]  # poor and other know nothing that good does not, which spreads over no classes
    assert "all classes alike" in strong
    assert numbers["uniform_entropy"] == pytest.approx(math.log(4))


def test_it_needs_nothing_else(compared, read_page):
    text = (compared[1] / "report.html").read_text()
    assert all(load.startswith(("data:", "#")) for load in read_page(text).loads)
    assert "<cat>" not in text


def test_it_is_written_again_from_its_numbers(compared, capsys):
    _, folder = compared
    before = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    assert main(["report", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"reports": [str(folder / "report.html")]}
    assert len((folder / "report.html").read_text()) == len(before)


def test_the_likeness_of_classes_is_drawn_where_it_is_known(compared, tmp_path):
    numbers = json.loads((compared[1] / "comparison.json").read_text())
    assert "Are these classes related?" not in (compared[1] / "report.html").read_text()
    for pair in numbers["pairs"]:
        for one in pair["top"][-2:]:
            one["similarity"] = 0.25
    (tmp_path / "comparison.json").write_text(json.dumps(numbers))
    text = report_comparison(tmp_path).read_text()
    assert "weaker teachers" in text[text.index("Are these classes related?") :]


def test_many_models_have_a_grid_without_numbers(compared, tmp_path):
    numbers = json.loads((compared[1] / "comparison.json").read_text())
    pair, model = numbers["pairs"][0], numbers["models"][0]
    names = [f"m{place}" for place in range(20)]
    numbers["models"] = [{**model, "model": name} for name in names]
    numbers["pairs"] = [{**pair, "teacher": a, "student": b} for a in names for b in names if a != b]
    (tmp_path / "comparison.json").write_text(json.dumps(numbers))
    text = report_comparison(tmp_path).read_text()
    square = text[text.index("What each knows") : text.index("Strong teachers")]
    assert not re.search(r">\d+\.\d</text>", square)
    assert "The 100 of 380 pairs" in text


def test_mistakes(tmp_path, capsys):
    with pytest.raises(UserError, match="has no comparison.json: give the folder of osmose compare --output"):
        report_comparison(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(["compare", "zoo:mlp-xs", "zoo:cnn-xs", "--output", str(tmp_path / "file")]) == 2
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize("width", [390, 1200])
def test_it_fits_into_a_window(compared, widths, width):
    wide, window = widths(compared[1] / "report.html", width)
    assert wide <= window
