from math import sqrt
from typing import Any

import pyarrow.parquet
import pytest

from osmose import table
from osmose.errors import UserError


def make_row(student: str, teacher: str | None, delta: float, seed: int = 0, p: float = 0.5, **more: Any) -> table.Row:
    """A row whose held-out delta is twice the test's, with opposite sign."""
    identity = {"student": student, "teacher": teacher, "method": "kl", "settings": "", "seed": seed, **more}
    test = {
        "accuracy_after": 80 + delta,
        "transfer_delta": delta,
        "knowledge_gain": delta + 1,
        "knowledge_loss": 1.0,
        "mcnemar_p": p,
    }
    heldout = {**test, "transfer_delta": -2 * delta}
    return table.row(identity, {**test, "heldout": heldout, "chosen": None, "environment": {"torch": "2"}})


@pytest.fixture
def rows() -> list[table.Row]:
    return [
        make_row("a", "x", 1.0, p=0.01),
        make_row("a", "y", 2.0, p=0.2),
        make_row("b", "x", -3.0, p=0.001),
        make_row("b", "y", 0.5, p=0.04),
        make_row("c", "x", -1.0, p=0.9),
        make_row("c", "y", 0.0, p=1.0),
    ]


def test_summary_against_numbers_worked_out_by_hand(rows: list[table.Row]) -> None:
    test, heldout = table.summarise(rows)
    # a student's teachers with a positive delta: a 2 of 2, b 1 of 2, c 0 of 2
    assert (test["part"], test["success_rate_median"], test["success_rate_pooled"]) == ("test", 50.0, 50.0)
    assert (test["students"], test["pairs"], test["runs"]) == (3, 6, 6)
    assert test["delta_mean"] == pytest.approx(-0.5 / 6)
    assert (test["delta_median"], test["delta_min"], test["delta_max"]) == (0.25, -3.0, 2.0)
    assert test["significantly_better"] == pytest.approx(100 * 2 / 6)
    assert test["significantly_worse"] == pytest.approx(100 * 1 / 6)
    assert test["gain_mean"] == pytest.approx(1 - 0.5 / 6)
    assert test["loss_mean"] == 1.0
    assert test["delta_seed_sd"] is None
    # on the held-out part every sign is turned round: a 0 of 2, b 1 of 2, c 1 of 2
    assert (heldout["part"], heldout["success_rate_median"]) == ("held-out", 50.0)
    assert heldout["success_rate_pooled"] == pytest.approx(100 * 2 / 6)
    assert heldout["delta_max"] == 6.0


def test_accuracy_on_corrupted_images_where_it_was_measured() -> None:
    rows = [make_row("a", "x", delta, seed=seed) for seed, delta in enumerate((1.0, 2.0))]
    summary, heldout = table.summarise(rows)
    assert summary["accuracy_mean"] == 81.5
    assert "corrupted_mean" not in summary
    corrupted = [{**one, "corrupted_after": after} for one, after in zip(rows, (40.0, 43.0), strict=True)]
    summary, heldout = table.summarise(corrupted)
    assert (summary["corrupted_mean"], summary["corrupted_sd"]) == (41.5, pytest.approx(sqrt(4.5)))
    assert "corrupted_mean" not in heldout


def test_success_rate_as_median_over_students_differs_from_pooled() -> None:
    won = [make_row("a", teacher, 1.0) for teacher in "xyz"]
    lost = [make_row(student, "x", -1.0) for student in "bc"]
    (summary, _) = table.summarise(won + lost)
    assert summary["success_rate_median"] == 0.0
    assert summary["success_rate_pooled"] == 60.0


def test_a_pairs_delta_is_the_mean_over_its_seeds_and_runs_are_counted_for_significance() -> None:
    rows = [
        make_row("a", "x", 1.0, seed=0, p=0.01),
        make_row("a", "x", -0.5, seed=1, p=0.01),
        make_row("a", "y", 0.1, seed=0, p=0.01),
        make_row("a", "y", -0.1, seed=1, p=0.3),  # cancels out: no success
    ]
    summary = table.summarise(rows)[0]
    assert (summary["pairs"], summary["runs"]) == (2, 4)
    assert summary["success_rate_pooled"] == 50.0
    assert summary["delta_max"] == 0.25
    assert summary["delta_min"] == 0.0
    assert summary["significantly_better"] == 50.0
    assert summary["significantly_worse"] == 25.0
    # variances between seeds, with n - 1: 1.5^2 / 2 and 0.2^2 / 2
    assert summary["delta_seed_sd"] == pytest.approx(sqrt((1.125 + 0.02) / 2))


def test_methods_and_settings_are_summarised_apart() -> None:
    warm = make_row("a", "x", 1.0) | {"settings": "method.temperature=4"}
    control = make_row("a", None, -1.0) | {"method": "cross-entropy"}
    found = table.summarise([make_row("a", "x", 0.0), warm, control])
    named = [(one["method"], one["settings"], one["delta_mean"]) for one in found if one["part"] == "test"]
    assert named == [("kl", "", 0.0), ("kl", "method.temperature=4", 1.0), ("cross-entropy", "", -1.0)]


def test_regression_has_the_median_and_range_of_its_error() -> None:
    base = {"student": "a", "teacher": "x", "method": "hard", "settings": ""}
    rows = [base | {"mse_after": error, "heldout_mse_after": 2 * error} for error in (1.0, 5.0, 2.0)]
    assert table.summarise(rows) == [
        {"part": part, "method": "hard", "settings": "", "runs": 3, "mse_median": m, "mse_min": low, "mse_max": high}
        for part, m, low, high in (("test", 2.0, 1.0, 5.0), ("held-out", 4.0, 2.0, 10.0))
    ]


def test_text_has_means_and_deviations_of_its_scores() -> None:
    def one(seed: int, perplexity: float, others: list[float]) -> table.Row:
        identity = {"student": "a", "teacher": "x", "method": "kl", "settings": "", "seed": seed}
        scores = {"perplexity_after": perplexity, "token_accuracy_after": 30.0, "last_word_accuracy_after": 10.0 + seed}
        more = {f"text:{n}.txt": {"perplexity_after": v, "word_perplexity_after": 9e9} for n, v in enumerate(others)}
        kept = {"retention_of_teacher1": {"token_accuracy": 80.0 + seed, "perplexity_ratio": 2.0}}
        return table.row(identity, {**scores, **kept, "others": more, "heldout": {**scores, "perplexity_after": 1.0}})

    test, heldout = table.summarise([one(0, 20.0, [30.0, 50.0]), one(1, 24.0, [40.0, 60.0])])
    assert (test["perplexity_mean"], test["perplexity_sd"]) == (22.0, pytest.approx(sqrt(8)))
    assert (test["last_word_accuracy_mean"], test["retention_mean"]) == (10.5, 80.5)
    assert (test["others_mean"], test["others_sd"]) == (45.0, pytest.approx(sqrt(50)))
    assert "last_word_retention_mean" not in test
    assert (heldout["part"], heldout["perplexity_mean"], "others_mean" in heldout) == ("held-out", 1.0, False)


def test_a_row_has_every_number_under_a_flat_name() -> None:
    numbers = {
        "student": "renamed",
        "share": {"teacher1": 0.25},
        "teacher_accuracy": [80.0, 90.0],
        "chosen": {"epoch": 3, "heldout": {"transfer_delta": 0.5}},
        "heldout": None,
        "environment": {"torch": "2.13"},
    }
    assert table.row({"student": "a"}, numbers) == {
        "student": "a",
        "share_teacher1": 0.25,
        "teacher_accuracy_1": 80.0,
        "teacher_accuracy_2": 90.0,
        "chosen_epoch": 3,
        "chosen_heldout_transfer_delta": 0.5,
    }


def test_both_files_hold_every_row(rows: list[table.Row], tmp_path: Any) -> None:
    rows[1]["share_teacher1"] = 0.5  # a column that the first row lacks
    table.write(tmp_path, rows, {"Runs": "6 of 6 finished"})
    assert pyarrow.parquet.read_table(tmp_path / "table.parquet").to_pylist() == [
        {"share_teacher1": None, **one} for one in rows
    ]
    text = (tmp_path / "table.md").read_text()
    assert "- Runs: 6 of 6 finished" in text
    (run,) = [line for line in text.splitlines() if line.startswith("| b | x |")]
    assert "| -3.00 |" in run
    assert "| 0.001 |" in run
    assert sum(line.startswith("| held-out | kl |") for line in text.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.md", "table.parquet"]


def test_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r"pip install 'osmose\[study\]'"):
        table.check_installed()
