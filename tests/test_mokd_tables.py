"""The tables of study mokd-fashion: what learning together adds, paired over seeds, and how far layers look."""

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("scipy")


@pytest.fixture
def tables(benchmark_file):
    return benchmark_file("mokd_tables")


def runs(*values):
    """Rows of seeds 0, 1, ...: neighbours of the first network, and all else from that."""
    return {
        seed: {
            **{f"networks_student{one}_{key}_after": value + one for one in (1, 2) for key in ("neighbours", "probe")},
            "networks_student1_attention_distance_after_1": value,
            "networks_student1_attention_distance_after_2": None,  # another pair's network has more layers
        }
        for seed, value in enumerate(values)
    }  # fmt: skip


def test_gains_are_paired_over_seeds(tables, capsys):
    """Of differences 0.1, 0.2 and 0.3 the deviation is 0.1, and Student's t with two degrees of freedom 4.303: 0.25."""
    methods = {"mokd": runs(80.1, 70.2, 60.3), "alone": runs(80.0, 70.0, 60.0)}
    tables.gains("one + two", methods, ["mokd", "alone", "of other pairs"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0] == "| one of one + two | neighbours | 71.20 ± 9.90 | 71.00 ± 10.00 |  | +0.20 (-0.05 to +0.45) |"
    assert lines[3].startswith("| two of one + two | linear classifier | 72.20 ± 9.90 |")


def test_layers_that_a_network_does_not_have_are_left_out(tables, capsys):
    tables.distances("one", {"alone": runs(3.0, 5.0)})
    assert capsys.readouterr().out == "| one of one | alone | 4.00 ± 1.41 |\n"
