"""The page of a study, from a table that is written here."""

import json

import pytest

from osmose import table
from osmose.cli import main
from osmose.report import report_study

pytest.importorskip("pyarrow")


def row(method, seed, after, *, before=80.0, **more):
    numbers = {
        "accuracy_before": before, "accuracy_after": after, "transfer_delta": after - before, "knowledge_gain": 3.0,
        "knowledge_loss": 1.0, "mcnemar_p": 0.01, "unit": "percent of samples", **more,
    }  # fmt: skip
    identity = {
        "student": "zoo:vit-s", "teacher": "zoo:cnn-s", "method": method, "settings": "", "seed": seed,
        "data": "fashion-mnist-mini", "folder": f"runs/{method}-{seed}",
    }  # fmt: skip
    return table.row(identity, numbers)


@pytest.fixture
def study(tmp_path):
    rows = [row("kl", 0, 79.5), row("kl", 1, 80.5), row("<b>dp</b>", 0, 81.25), row("<b>dp</b>", 1, 82.0)]
    table.write(tmp_path, rows, {"Runs": "4 of 4 finished", "Data": "fashion-mnist-mini", "Seeds": "0, 1"})
    return tmp_path


def test_it_has_what_the_table_has(study, read_page):
    page = read_page(report_study(study).read_text())
    text = page.text
    assert "4 of 4 finished" in text
    assert "data: fashion-mnist-mini" in text
    assert all(load.startswith(("data:", "#")) for load in page.loads)
    assert text.count("+1.62") == 4  # mean, median, least and most of one pair
    run = text.index("+1.25", text.index("Runs", text.index("Methods")))
    assert text[run - 2 : run] == ["80.00", "81.25"]
    assert "<b>dp</b>" in text
    assert "change of the test accuracy, points" in text


def test_students_that_begin_with_new_weights_show_their_accuracy(tmp_path, read_page):
    table.write(tmp_path, [row("kl", 0, 97.0, before=10.0, corrupted={"after": 40.0})], {})
    text = read_page(report_study(tmp_path).read_text()).text
    assert "test accuracy, %" in text
    assert "on corrupted images" in text


def test_numbers_for_labels_and_no_run_at_all(tmp_path, read_page):
    errors = [{**row("kl", seed, 0), "mse_before": 9.0, "mse_after": 0.5 + seed} for seed in (0, 1)]
    kept = ("student", "teacher", "method", "settings", "seed", "data", "folder", "mse_before", "mse_after")
    table.write(tmp_path, [{key: one[key] for key in kept} for one in errors], {})
    assert "mean squared error on the test part" in read_page(report_study(tmp_path).read_text()).text
    table.write(tmp_path, [], {"Runs": "0 of 3 finished"})
    assert "No run has finished" in read_page(report_study(tmp_path).read_text()).text


def test_the_command_writes_it_again(study, capsys):
    assert main(["report", str(study), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"reports": [str(study / "report.html")]}


@pytest.mark.parametrize("width", [390, 1200])
def test_it_fits_into_a_window(study, widths, width):
    wide, window = widths(report_study(study), width)
    assert wide <= window
