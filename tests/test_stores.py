"""`osmose signals`: what it builds is what runs ask for, and what it lists, verifies and removes is what is there."""

import json

import pytest

from osmose import stores
from osmose.cli import main
from osmose.errors import UserError
from osmose.recipe import resolve
from osmose.signals import Frozen


@pytest.fixture
def kept(plain, tmp_path):
    """Makes a resolved recipe with a store."""

    def make(**changes):
        return resolve(plain(signals={"store": str(tmp_path / "store")}, **changes))

    return make


@pytest.mark.parametrize("method", [{"target": "partition"}, {"name": "contrastive", "target": "partition"}])
def test_a_run_after_build_asks_no_network(kept, execute, monkeypatch, tmp_path, method):
    numbers = stores.build(kept(method=method), quiet=True)
    assert (numbers["views"], numbers["samples"], numbers["computed"]) == (2, 270, 540)
    assert stores.build(kept(method=method), quiet=True)["computed"] == 0

    def refuse(frozen, x):
        raise AssertionError("asked")

    monkeypatch.setattr(Frozen, "_in_blocks", refuse)
    execute(tmp_path / "run", method=method, signals={"store": str(tmp_path / "store")})


def test_what_is_listed_verified_and_removed(kept, tmp_path, capsys):
    store = tmp_path / "store"
    stores.build(kept(method={"target": "partition"}), quiet=True)
    listed = stores.listed(store)
    assert {row["model"]: (row["fields"], row["views"]) for row in listed} == {
        "fresh:zoo:cnn-xs": ("logits-float32", 2),
        "fresh:zoo:mlp-xs": ("logits-float32", 2),
    }
    file = sorted((store / listed[0]["key"]).rglob("*.view"))[1]
    damaged = bytearray(file.read_bytes())
    damaged[next(place for place, byte in enumerate(damaged) if byte)] ^= 1
    file.write_bytes(damaged)
    assert [(row["whole"], row["damaged"]) for row in stores.verify(store)] == [(539, 1), (540, 0)]

    assert main(["signals", "list", str(store), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signals"] == listed
    assert main(["signals", "remove", str(store), *2 * [listed[0]["key"]]]) == 0
    assert [row["key"] for row in stores.listed(store)] == [listed[1]["key"]]
    assert main(["signals", "remove", str(store), "all"]) == 0
    assert stores.listed(store) == []


def test_the_command_builds_what_the_same_flags_transfer(plain, grey, tmp_path, capsys):
    flags = ["--teacher", "fresh:zoo:cnn-xs", "--student", "fresh:zoo:mlp-xs", "--data", grey, "--epochs", "1",
             "--batch-size", "40", "--threads", "1", "--signals.store", str(tmp_path / "store")]  # fmt: skip
    assert main(["signals", "build", *flags]) == 0
    assert "computed: 270" in capsys.readouterr().out
    assert main(["signals", "build", "--json", *flags]) == 0
    assert json.loads(capsys.readouterr().out)["computed"] == 0


def test_mistakes(kept, plain, tmp_path, capsys):
    with pytest.raises(UserError, match=r"^signals.store is empty: give --signals.store DIR"):
        stores.build(resolve(plain()), quiet=True)
    for changes in ({"method": {"name": "supervised"}}, {"blend": "mixup"}):
        with pytest.raises(UserError, match="^a run of this recipe keeps no signals"):
            stores.build(kept(**changes), quiet=True)
    with pytest.raises(UserError, match="^there is no store of signals"):
        stores.listed(tmp_path / "nothing")
    (tmp_path / "store").mkdir()
    with pytest.raises(UserError, match="^there are no signals 'abc' in .*: osmose signals list"):
        stores.remove(tmp_path / "store", ["abc"])
    assert main(["signals", "list", str(tmp_path / "store"), "--epochs", "3"]) == 2
    assert "unknown argument '--epochs'" in capsys.readouterr().err


def test_only_stores_are_removed(kept, tmp_path):
    stores.build(kept(), quiet=True)
    other = tmp_path / "store" / "package"
    other.mkdir()
    (other / "about.json").write_text('{"key": {"a": 1}, "model": "mine"}')
    assert len(stores.listed(tmp_path / "store")) == 1
    stores.remove(tmp_path / "store", ["all"])
    assert (other / "about.json").exists()


def test_a_recipe_with_stages_is_refused(tmp_path, capsys):
    (tmp_path / "two.yaml").write_text("stages: [{name: a, student: zoo:cnn-s}]")
    assert main(["signals", "build", "--recipe", str(tmp_path / "two.yaml"), "--signals.store", "x"]) == 2
    assert "has stages: build takes the recipe of one run" in capsys.readouterr().err
