"""The tables of study mokd-fashion: what learning together adds, paired over seeds, and how far layers look."""

from pathlib import Path

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
    tables.gains("one + two", {"mokd": runs(80.1, 70.2, 60.3), "alone": runs(80.0, 70.0, 60.0)}, "alone")
    mokd, alone = capsys.readouterr().out.splitlines()
    added = "; +0.20 (-0.05 to +0.45)"
    cells = " | ".join(f"{mean} ± 9.90{added}" for mean in ("71.20", "71.20", "72.20", "72.20"))
    assert mokd == f"| one + two | mokd | 3 | {cells} |"
    assert alone.startswith("| one + two | alone | 3 | 71.00 ± 10.00 | 71.00")


def test_a_network_that_hears_nobody_is_the_same_beside_any_partner(tables, capsys):
    """The first `b` of a pair counts for that beside an `a`; of differences 5, 6, 7 and of 1, 0, -1 the interval is 2.48 wide."""
    pairs = {
        "a + b": {"mokd": runs(5.0, 7.0, 9.0), "deaf": runs(0.0)},
        "b + b": {"mokd": runs(2.0, 2.0, 2.0), "deaf": runs(1.0, 2.0, 3.0)},
    }
    tables.apart(pairs, "deaf")
    said = capsys.readouterr().out.splitlines()
    for network, less in (
        ("a (1) of a + b", ""),
        ("b (2) of a + b", "+6.00 (+3.52 to +8.48)"),
        ("b (1) of b + b", "+0.00 (-2.48 to +2.48)"),
        ("b (2) of b + b", "+0.00 (-2.48 to +2.48)"),
    ):
        for read in ("neighbours", "linear"):
            assert f"| {network} | {read} | mokd | {less} |" in said
    assert len(said) == 8


def test_layers_that_a_network_does_not_have_are_left_out(tables, capsys):
    tables.distances("one", {"alone": runs(3.0, 5.0)})
    assert capsys.readouterr().out == "| one (1) of one | alone | 4.00 ± 1.41 |\n"


def test_agreement_is_with_partners_of_the_same_seed(tables, capsys, monkeypatch, tmp_path):
    """Of both networks of the pair, beside the other one of each method, on their own data; and of each method's own two."""
    monkeypatch.chdir(tmp_path)
    methods = {
        name: {seed: {"folder": Path(f"study/runs/{name}-{seed}"), "agreement_after": own + seed} for seed in (0, 1)}
        for name, own in (("mokd", 70.0), ("alone", 60.0))
    }
    for seeds in methods.values():
        for row in seeds.values():
            row["folder"].mkdir(parents=True)
            (row["folder"] / "recipe.yaml").write_text("data: {name: some-images}")
    asked = []

    def compare(models, data, part):
        asked.append(models)
        assert (data, part) == ({"name": "some-images"}, "test")
        names = [f"model{place}" for place in range(len(models))]
        pairs = [
            {
                "teacher": one,
                "student": other,
                "agreement": 10.0 * int(one[-1]) + 20.0 * int(other[-1]) + len(asked) % 2,
            }
            for one in reversed(names)
            for other in names
            if one != other
        ]
        right = [50.0 + 4 * place + len(asked) for place in range(len(models))]
        return {"models": [{"model": n, "accuracy": a} for n, a in zip(names, right, strict=True)], "pairs": pairs}

    monkeypatch.setattr(tables, "compare", compare)
    tables.agreement("cnn + vit", methods, "mokd")
    first = ["mokd-0/student1", "mokd-0/student2", "alone-0/student2"]
    assert asked[0] == [f"file:study/runs/{one}.safetensors" for one in first]
    assert [one.split("/")[-1] for one in asked[3]] == ["student2.safetensors", *["student1.safetensors"] * 2]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| cnn (1) of cnn + vit | mokd | 55.50 ± 0.71 | 20.50 ± 0.71 |  | 70.50 ± 0.71 |"
    less = "-20.00 (-20.00 to -20.00)"
    assert (
        lines[3]
        == f"| vit (2) of cnn + vit | alone, the nearest | 61.50 ± 0.71 | 40.50 ± 0.71 | {less} | 60.50 ± 0.71 |"
    )


def test_what_is_missing_leaves_no_difference(tables, capsys):
    """A collapsed run, a method that has not run yet."""
    tables.gains("one", {"mokd": runs(80.1, 70.2), "alone": {0: runs(80.0)[0]}}, "alone")
    tables.gains("one", {"mokd": runs(80.1)}, "alone")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| one | mokd | 2 | 76.15 ± 7.00 | 76.15")
    assert lines[1].startswith("| one | alone | 1 | 81.00 |")
    assert lines[2].startswith("| one | mokd | 1 | 81.10 |")


def test_rows_come_from_several_studies_and_a_name_that_no_method_has_is_refused(tables, tmp_path, capsys):
    """And so are two runs of one method and seed, of which one would hide the other."""
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    folders = []
    for method, values in (("mokd", (80.1, 70.2)), ("alone", (80.0, 70.0))):
        folders.append(tmp_path / method)
        folders[-1].mkdir()
        rows = [
            {
                **row,
                "student": "fresh:zoo:one + fresh:zoo:two",
                "method": method,
                "seed": seed,
                "folder": f"runs/{seed}",
            }
            for seed, row in runs(*values).items()
        ]
        pq.write_table(pa.Table.from_pylist(rows), folders[-1] / "table.parquet")
    tables.main(folders, "alone", ())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[2].strip() for line in lines if line.startswith("| one + two |")] == ["mokd", "alone"]
    assert "partner" not in "".join(lines)
    with pytest.raises(SystemExit, match="no method none: give one of alone, mokd"):
        tables.main(folders, "none", ())
    with pytest.raises(SystemExit, match="mokd of .* has several runs of seed 0"):
        tables.main([folders[0], folders[0]], "mokd", ())
