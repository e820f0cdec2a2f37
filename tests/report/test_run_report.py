"""The report of a run: what it says, that it needs nothing else, and how it looks in a browser."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from osmose.cli import main
from osmose.errors import UserError
from osmose.report import report_run
from osmose.report.charts import bars, curves
from osmose.report.page import Section, page


@pytest.fixture(scope="module")
def finished(execute, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "run"
    result = execute(folder, epochs=3, method={"target": "partition"})
    return folder, result.numbers


def test_it_says_what_the_run_measured(finished, read_page):
    folder, numbers = finished
    text = " ".join(read_page((folder / "report.html").read_text()).text)
    for key in ("accuracy_before", "accuracy_after", "knowledge_gain", "knowledge_loss"):
        assert f"{numbers[key]:.2f} %" in text
    assert f"{numbers['transfer_delta']:+.2f}" in text
    assert "fresh:zoo:mlp-xs taught by fresh:zoo:cnn-xs" in text
    assert f"{numbers['cost']['teacher1']['parameters']:,}" in text
    assert "target: partition" in text
    for heading in (
        "How it learned",
        "Gained and lost, class by class",
        "Newly right",
        "Who taught what",
        "Cost",
    ):
        assert heading in text


def test_losses_that_are_summed_are_drawn_one_by_one(execute, tmp_path, read_page):
    """With the values that metrics.jsonl has, and for one loss no second figure."""
    said = "each loss, without its weight"
    method = {"name": "distill", "kl_weight": 0.5}
    for name, settings in (("both", method), ("alone", {**method, "kl_weight": 1.0})):
        execute(tmp_path / name, epochs=2, method=settings)
        text = read_page((tmp_path / name / "report.html").read_text()).text
        assert (said in text) == (name == "both")
    lines = [json.loads(line) for line in (tmp_path / "both" / "metrics.jsonl").read_text().splitlines()]
    losses = {key: [(one["step"], one[key]) for one in lines if key in one] for key in ("cross_entropy", "kl")}
    drawn = strip(curves(losses, x="optimiser step", y=said))
    assert drawn in strip((tmp_path / "both" / "report.html").read_text())


def test_it_needs_nothing_else(finished, read_page):
    folder, _ = finished
    text = (folder / "report.html").read_text()
    loads = read_page(text).loads
    assert loads
    assert all(load.startswith(("data:", "#")) for load in loads)
    assert not re.search(r"url\((?!#)|@import", text)


def test_bars_are_the_flips_of_each_class(finished):
    folder, numbers = finished
    answers = load_file(folder / "answers.safetensors")
    before, after = (answers[f"test/{role}"] == answers["test/labels"] for role in ("before", "after"))
    gained = [int((after & ~before & (answers["test/labels"] == one)).sum()) for one in range(4)]
    lost = [int((before & ~after & (answers["test/labels"] == one)).sum()) for one in range(4)]
    assert 100 * sum(gained) / 80 == pytest.approx(numbers["knowledge_gain"])
    drawn = bars(["0", "1", "2", "3"], gained, lost, x="test samples newly right (right) and newly wrong (left)")
    assert strip(drawn) in strip((folder / "report.html").read_text())


def strip(svg):
    """Without the names that matplotlib makes up."""
    return re.sub(r'(id|xlink:href|clip-path)="[^"]*"', "", svg)


def test_samples_are_shown_with_their_class_and_both_answers(finished, read_page):
    folder, _ = finished
    answers, flipped = load_file(folder / "answers.safetensors"), load_file(folder / "flipped.safetensors")
    row = int(flipped["gained/rows"][0])
    before, after = (int(answers[f"test/{role}"][row]) for role in ("before", "after"))
    assert f"{before} → {after}" in read_page((folder / "report.html").read_text()).text


def test_the_command_writes_it_again(finished, capsys):
    folder, _ = finished
    (folder / "report.html").unlink()
    assert main(["report", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"reports": [str(folder / "report.html")]}
    assert (folder / "report.html").exists()


def test_a_run_of_an_earlier_version_has_a_shorter_one(finished, tmp_path, read_page):
    folder, numbers = finished
    shutil.copytree(folder, tmp_path / "old")
    for name in ("answers.safetensors", "flipped.safetensors", "report.html"):
        (tmp_path / "old" / name).unlink()
    old = {key: value for key, value in numbers.items() if key not in ("cost", "share")}
    (tmp_path / "old" / "result.json").write_text(json.dumps(old))
    text = " ".join(read_page(report_run(tmp_path / "old").read_text()).text)
    assert "How it learned" in text
    assert "Gained and lost" not in text


def test_of_many_classes_those_that_changed_most_are_drawn(finished, tmp_path, read_page):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "many")
    labels = torch.arange(100).repeat(2).int()
    before, after = labels.clone(), labels.clone()
    before[40:80] += 1
    after[90] += 1
    save_file(
        {"test/labels": labels, "test/before": before, "test/after": after}, tmp_path / "many/answers.safetensors"
    )
    (tmp_path / "many" / "flipped.safetensors").unlink()
    text = read_page(report_run(tmp_path / "many").read_text()).text
    assert "The 30 of 100 classes that changed most." in text
    assert "41" in text
    assert "95" not in text


def test_numbers_for_labels(execute, tmp_path, read_page):
    execute(
        tmp_path / "run", student="fresh:toy:mlp", teacher="toy:cosine", data="cosine", epochs=2, batch_size=100,
        method={"target": "teacher", "optimiser": {"lr": 0.01}},
    )  # fmt: skip
    text = " ".join(read_page((tmp_path / "run" / "report.html").read_text()).text)
    assert "mean squared error before" in text


def test_hards_pictures_are_in_it(execute, tmp_path):
    execute(
        tmp_path / "run", teacher="fresh:zoo:vit-xs",
        method={"name": "hard", "l_min": 0.74, "l_max": 0.75, "consecutive": 1, "optimiser": {"lr": 0.1, "schedule": "constant"}},
    )  # fmt: skip
    text = (tmp_path / "run" / "report.html").read_text()
    assert "What was learned beside the student" in text
    assert text.count("data:image/svg+xml;base64,") == 2


def test_names_are_escaped():
    text = page("<b>a & b</b>", "", [], [Section("<script>alert(1)</script>", code="<x>")])
    assert "<script>" not in text
    assert "&lt;b&gt;a &amp; b&lt;/b&gt;" in text


def test_figures_take_the_pages_colours_and_size():
    svg = curves({"accuracy": [(1, 2.0), (2, 3.0)]}, x="epoch", y="accuracy")
    assert "currentColor" in svg
    assert svg.startswith("<svg")
    assert " width=" not in svg[: svg.index(">")]
    assert "viewBox" in svg[: svg.index(">")]
    assert "<text" in svg


def test_mistakes(tmp_path, capsys):
    with pytest.raises(UserError, match="has no finished run: give a run's folder, with a result.json"):
        report_run(tmp_path)
    assert main(["report", str(tmp_path / "nothing")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("width", [390, 1200])
def test_it_fits_into_a_window(finished, widths, width):
    folder, _ = finished
    wide, window = widths(folder / "report.html", width)
    assert wide <= window
