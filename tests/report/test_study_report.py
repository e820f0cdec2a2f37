"""The page of a study, from a table that is written here."""

import json
import math
import re

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
    assert "change of accuracy on the test part, points" in text


def test_students_that_begin_with_new_weights_show_their_accuracy(tmp_path, read_page):
    table.write(tmp_path, [row("kl", 0, 97.0, before=10.0, corrupted={"after": 40.0})], {})
    text = read_page(report_study(tmp_path).read_text()).text
    assert "accuracy on the test part, %" in text
    assert "on corrupted images" in text


def test_numbers_for_labels_and_no_run_at_all(tmp_path, read_page):
    errors = [
        {**row("kl", seed, 0), "mse_before": 9.0, "mse_after": after} for seed, after in enumerate((0.5, math.inf))
    ]
    for one in errors:
        one["settings"] = "method.optimiser.lr=1"
    kept = ("student", "teacher", "method", "settings", "seed", "data", "folder", "mse_before", "mse_after")
    table.write(tmp_path, [{key: one[key] for key in kept} for one in errors], {})
    text = read_page(report_study(tmp_path).read_text()).text
    assert "mean squared error on the test part" in text
    assert text[text.index("kl, lr 1") + 1] == "inf"
    table.write(tmp_path, [], {"Runs": "0 of 3 finished"})
    assert "No run has finished" in read_page(report_study(tmp_path).read_text()).text


def rating(method, settings, seed, error, heldout):
    """A run's row that predicts ratings."""
    kept = ("student", "teacher", "method", "seed", "data", "folder")
    one = {key: value for key, value in row(method, seed, 0).items() if key in kept}
    return {**one, "settings": settings, "rmse_after": error, "heldout_rmse_after": heldout}


def test_settings_of_the_data_stand_beside_each_other_and_the_held_out_part_chooses(tmp_path, read_page):
    rows = [
        rating("kd", f"data.genre={genre}, method.optimiser.weights=[1, 2], method.optimiser.lr={lr}", seed, error, held)
        for genre, lr, error, held in (
            ("War", 1, 0.8, 0.95), ("War", 2, 0.9, 0.85), ("Drama", 1, 0.7, 0.71), ("Drama", 2, 0.6, 0.72),
        )
        for seed in (0, 1)
    ]  # fmt: skip
    table.write(tmp_path, rows, {})
    report = report_study(tmp_path).read_text()
    text = read_page(report).text
    assert text[text.index("methods") - 1] == "2"  # whatever they are tried on
    start = text.index("Root mean squared error on the test part, stars") + 2
    assert text[start : start + 8] == [
        "War", "Drama", "kd, weights [1, 2], lr 1", "0.8000 ± 0.0000", "0.7000 ± 0.0000",
        "kd, weights [1, 2], lr 2", "0.9000 ± 0.0000", "0.6000 ± 0.0000",
    ]  # fmt: skip
    bold = re.findall("<td[^>]*><b>(.*?)</b>", report)
    assert bold == ["0.7000 ± 0.0000", "0.9000 ± 0.0000", "0.7100 ± 0.0000", "0.8500 ± 0.0000"]
    assert "root mean squared error on the held-out part, stars" in text  # what is drawn


def test_gaps_are_left_out(tmp_path, read_page):
    """A genre without a held-out part, and a variant with fewer runs than the others."""
    rows = [
        rating("kd", f"data.genre={genre}, method.lr={lr}", seed, error, error)
        for genre, lr, seed, error in (
            ("War", 1, 0, 0.9), ("War", 1, 1, 0.9), ("War", 2, 0, 0.1),
            ("Drama", 1, 0, 0.9),
        )
    ]  # fmt: skip
    del rows[-1]["heldout_rmse_after"]
    table.write(tmp_path, rows, {})
    report = report_study(tmp_path).read_text()
    assert re.findall("<td[^>]*><b>(.*?)</b>", report) == ["0.9000 ± 0.0000"] * 2
    assert report.count("<figure>") == 1


def test_features_of_different_networks_are_not_thrown_together(tmp_path, read_page):
    kept = ("teacher", "method", "settings", "seed", "data", "folder")
    rows = [
        {**{key: row("dino", seed, 0)[key] for key in kept}, "student": student, "neighbours_after": 1.0,
         "networks_student_probe_after": probe, "heldout_networks_student_probe_after": probe}
        for student, probe in (("a", 50.0), ("b", 70.0)) for seed in (0, 1)
    ]  # fmt: skip
    table.write(tmp_path, rows, {})
    text = read_page(report_study(tmp_path).read_text()).text
    start = text.index("Accuracy read from features of the test part, %") + 2
    assert text[start : start + 5] == ["a", "b", "dino", "50.00 ± 0.00", "70.00 ± 0.00"]


def test_networks_of_a_run_are_told_however_many(tmp_path, read_page):
    kept = ("teacher", "method", "settings", "seed", "data", "folder")
    probes = {f"student{number}": 50.0 + number for number in (1, 2, 3)}
    rows = [
        {**{key: row("dino", seed, 0)[key] for key in kept}, "student": "a + b + c", "neighbours_after": 1.0,
         **{f"networks_{role}_probe_after": probe for role, probe in probes.items()}} for seed in (0, 1)
    ]  # fmt: skip
    table.write(tmp_path, rows, {})
    assert "53.00" in read_page(report_study(tmp_path).read_text()).text
    (summary,) = [one for one in table.summarise(rows) if one["part"] == "test"]
    assert [summary[f"{role}_probe_mean"] for role in probes] == [*probes.values()]
    assert "linear 3" in (tmp_path / "table.md").read_text()


@pytest.mark.filterwarnings("error:constrained_layout not applied")
def test_long_names_leave_room_for_their_dots(tmp_path):
    settings = ", ".join(f"method.key{number}.of_some_length=0.0{number}" for number in range(6))
    table.write(tmp_path, [{**row("a-name-of-many-words", seed, 80), "settings": settings} for seed in (0, 1)], {})
    report_study(tmp_path)


def test_the_command_writes_it_again(study, capsys):
    assert main(["report", str(study), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"reports": [str(study / "report.html")]}


@pytest.mark.parametrize("width", [390, 1200])
def test_it_fits_into_a_window(study, widths, width):
    wide, window = widths(report_study(study), width)
    assert wide <= window
