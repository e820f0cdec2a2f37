"""Methods of a study beside one of them: what is chosen by the held-out part, and differences paired over seeds."""

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("scipy")


@pytest.fixture
def table(benchmark_file):
    return benchmark_file("paired_table")


def row(method, rate, seed, heldout, test):
    return {
        "student": "cnn", "method": method, "settings": f"lr={rate}", "seed": seed, "accuracy_before": 50.0,
        "heldout_accuracy_after": heldout, "accuracy_after": test,
    }  # fmt: skip


ROWS = [
    row(method, rate, seed, heldout, test + gain)
    for seed, gain in enumerate((0.0, 2.0, 4.0))
    for method, rate, heldout, test in (
        ("kl", 0.1, 80.0, 70.0 - seed),
        ("labels", 0.1, 60.0, 90.0),  # better on the test part, worse held out
        ("labels", 0.2, 70.0, 71.0),
    )
]


def test_settings_are_chosen_held_out_and_differences_are_paired(table):
    """Of differences 1, 2 and 3 the deviation is 1, and Student's t with two degrees of freedom 4.303: 2.48."""
    assert list(table.lines(ROWS, "kl"))[2:] == [
        "| cnn | kl | lr=0.1 | 50.00 | 71.00 ± 1.00 |  |",
        "| cnn | labels | lr=0.2 | 50.00 | 73.00 ± 2.00 | +2.00 (-0.48 to +4.48) |",
    ]


def test_settings_that_have_not_run_with_all_seeds_are_not_chosen(table):
    assert list(table.lines([*ROWS, row("labels", 0.4, 0, 99.0, 99.0)], "kl")) == list(table.lines(ROWS, "kl"))


def test_what_cannot_be_paired_is_told(table):
    with pytest.raises(SystemExit, match="finish the study"):
        list(table.lines([one for one in ROWS if (one["method"], one["seed"]) != ("labels", 2)], "kl"))
    with pytest.raises(SystemExit, match="several teachers"):
        list(table.lines([*ROWS, ROWS[0]], "kl"))
    with pytest.raises(SystemExit, match="cnn has no method kd: give one of kl, labels"):
        list(table.lines(ROWS, "kd"))
