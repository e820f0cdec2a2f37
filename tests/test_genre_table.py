"""The table of ratings by genre: what is chosen, and by which part."""

import pytest

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("scipy")


@pytest.fixture
def table(benchmark_file):
    return benchmark_file("genre_table")


def row(method, genre, decay, seed, heldout, test):
    return {
        "method": method, "settings": f"data.genre={genre}, method.optimiser.weight_decay={decay}", "seed": seed,
        "heldout_rmse_after": heldout, "rmse_after": test,
    }  # fmt: skip


ROWS = [
    row(method, genre, decay, seed, heldout + 0.01 * seed, test + 0.01 * seed)
    for method, genre, decay, heldout, test in (
        ("alone", "War", 0.001, 1.2, 1.0),
        ("alone", "War", 0.01, 1.1, 1.3),  # better held out, worse on the test part
        ("alone", "Drama", 0.001, 0.9, 0.95),
        ("alone", "Drama", 0.01, 1.0, 0.8),
        ("fitnet", "War", 0.001, 1.15, 1.05),
        ("fitnet", "Drama", 0.001, 0.8, 0.9),
        ("interactive-1", "War", 0.001, 1.0, 1.1),
        ("interactive-1", "Drama", 0.001, 0.7, 0.92),
        ("interactive-2", "War", 0.001, 0.9, 1.2),
        ("interactive-2", "Drama", 0.001, 1.9, 0.1),
    )
    for seed in (0, 1, 2)
]


def test_settings_are_chosen_on_the_held_out_part(table):
    heldout, test = table.chosen(ROWS)
    assert test["alone"]["War"] == pytest.approx({0: 1.3, 1: 1.31, 2: 1.32})
    assert test["alone"]["Drama"] == pytest.approx({0: 0.95, 1: 0.96, 2: 0.97})
    assert heldout["alone"]["War"] == pytest.approx({0: 1.1, 1: 1.11, 2: 1.12})
    assert table.mean(test, "alone", ["War", "Drama"]) == pytest.approx((1.31 + 0.96) / 2)


def test_settings_that_have_not_run_with_all_seeds_are_not_chosen(table):
    begun = row("alone", "War", 0.1, 0, 0.1, 0.1)  # would be the best
    assert table.chosen([*ROWS, begun]) == table.chosen(ROWS)


def test_differences_are_paired_over_seeds(table):
    """Of 0.1, 0.2 and 0.3 the deviation is 0.1, and Student's t with two degrees of freedom 4.303."""
    difference, reach = table.paired({0: 1.1, 1: 1.2, 2: 1.3}, {2: 1.0, 1: 1.0, 0: 1.0})
    assert difference == pytest.approx(0.2)
    assert reach == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)


def test_the_variant_is_chosen_without_the_test_part(table, capsys, tmp_path):
    for name in ("study", "teachers"):
        (tmp_path / name).mkdir()
    begun = row("feature", "War", 0.001, 0, 0.1, 0.1)
    pq.write_table(pa.Table.from_pylist([*ROWS, begun]), tmp_path / "study" / "table.parquet")
    taught = [{"seed": seed, "by_genre_War_after": 1.0, "by_genre_Drama_after": 0.5 + seed} for seed in (0, 1, 2, 100)]
    pq.write_table(pa.Table.from_pylist(taught), tmp_path / "teachers" / "table.parquet")
    table.main(tmp_path / "study", tmp_path / "teachers", {})
    said = capsys.readouterr().out
    assert "| teacher | 1.0000 ± 0.0000 | 1.5000 ± 0.5774 |" in said
    assert "all genres: interactive-1" in said
    assert said.startswith("feature: left out, as some of its runs are missing\n| |")
    assert "| feature |" not in said
    assert "| War | alone | -0.2000 (-0.2000 to -0.2000) |" in said  # held out, alone is better than fitnet
    assert "| War | fitnet | +0.0500" in said  # and on the test part worse
    assert "| Drama | fitnet | +0.0200" in said
    assert "| War | interactive-2 | 1.2100 |" in said
    assert "| alone | 2 | 2 | 0 | -0.1150 |" in said
    assert "| fitnet | 0 | 0 | 2 | +0.0350 |" in said
    table.main(tmp_path / "study", tmp_path / "teachers", {"method.optimiser.weight_decay": "0.001"})
    assert "| alone | 1.0100 ± 0.0058 | 0.9600 ± 0.0058 |" in capsys.readouterr().out
