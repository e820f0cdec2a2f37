import pickle
import sys
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from osmose.errors import UserError
from osmose.models import Network, load_model, show_models
from osmose.models.sources import SOURCES, zoo
from osmose.models.zoo import ZOO

IMAGES = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra 'vision'")


def equal(a: Network, b: Network) -> bool:
    left, right = a.body.state_dict(), b.body.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """Weights for zoo:vit-xs and zoo:cnn-s as if the package held them."""
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    for name in ("vit-xs", "cnn-s"):
        network = load_model(f"fresh:zoo:{name}", classes=tuple("abcdefghij"), seed=7)
        network.save(tmp_path / f"{name}.safetensors", test_accuracy=75.5, heldout_accuracy=80.0, recipe={"epochs": 60})
    return tmp_path


@pytest.mark.parametrize("name", ["fresh:zoo:vit-m", pytest.param("fresh:timm:test_resnet", marks=needs_timm)])
def test_new_weights_follow_seed_and_stream_alone(name):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = load_model(name, seed=3, num_classes=4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert equal(first, load_model(name, seed=3, num_classes=4))
    assert not equal(first, load_model(name, seed=4, num_classes=4))
    assert not equal(first, load_model(name, seed=3, num_classes=4, stream="teacher/init"))


@pytest.mark.parametrize("name", [*(f"zoo:{name}" for name in ZOO), pytest.param("timm:test_resnet", marks=needs_timm)])
def test_a_saved_network_comes_back_to_the_bit(name, tmp_path):
    network = load_model(f"fresh:{name}", classes=("cat", "dog"), channels=3, image_size=(32, 24))
    network(torch.rand(4, 3, 32, 24))  # moves the statistics of batch normalisation
    network.save(tmp_path / "student.safetensors")
    for place in (tmp_path, tmp_path / "student.safetensors"):
        back = load_model(f"file:{place}", seed=5)
        assert equal(network, back)
        assert back.digest() == network.digest()
        assert back.name == f"file:{place}"
        assert (back.architecture, back.preprocessing) == (network.architecture, network.preprocessing)
        assert (back.classes, back.num_classes) == (("cat", "dog"), 2)
        x = torch.rand(2, 1, 32, 24)
        assert torch.equal(back.eval()(x).logits, network.eval()(x).logits)


def test_packaged_weights_bring_their_classes(packaged):
    network = load_model("zoo:vit-xs", classes=("other",))
    assert (network.name, network.classes) == ("zoo:vit-xs", tuple("abcdefghij"))
    assert equal(network, load_model("fresh:zoo:vit-xs", num_classes=10, seed=7))


def test_trained_weights_load_nothing_on_the_meta_device(packaged):
    with torch.device("meta"):
        network = load_model("head:zoo:vit-xs", num_classes=3)
        assert network(torch.empty(2, 1, 28, 28)).logits.shape == (2, 3)


@pytest.mark.parametrize("start", ["zoo:cnn-s", "file:{}/cnn-s.safetensors"])
def test_a_new_head_keeps_the_body(start, packaged, tmp_path):
    name = start.format(packaged)
    trained = load_model(name)
    network = load_model(f"head:{name}", classes=("x", "y", "z"))
    assert (network.classes, network.num_classes, network.head.out_features) == (("x", "y", "z"), 3, 3)
    old, new = trained.body.state_dict(), network.body.state_dict()
    changed = {key for key in old if not torch.equal(old[key], new[key])}
    assert changed == {"head.weight", "head.bias"}
    assert equal(network, load_model(f"head:{name}", num_classes=3))
    assert not equal(network, load_model(f"head:{name}", num_classes=3, seed=1))
    network.save(tmp_path / "head.safetensors")
    assert equal(network, load_model(f"file:{tmp_path}/head.safetensors"))
    assert load_model(name).num_classes == 10
    with pytest.raises(UserError, match="needs the data's classes for its head"):
        load_model(f"head:{name}")


def test_the_first_blocks_of_a_trained_network(tmp_path):
    whole = load_model("zoo:vit-m")
    network = load_model("head:zoo:vit-m,depth=2", num_classes=3)
    old, new = whole.body.state_dict(), network.body.state_dict()
    assert {key for key in old if key not in new} == {key for key in old if key.startswith(("layers.2.", "layers.3."))}
    assert {key for key in new if new[key].shape != old[key].shape or not torch.equal(new[key], old[key])} == {
        "head.weight",
        "head.bias",
    }
    network.save(tmp_path / "blocks.safetensors")
    assert equal(network, load_model(f"file:{tmp_path}/blocks.safetensors"))
    whole.save(tmp_path / "whole.safetensors")
    assert equal(load_model(f"head:file:{tmp_path}/whole.safetensors,depth=2", num_classes=3), network)
    with pytest.raises(
        UserError, match=r"'head:zoo:vit-m,depth=6': 'layers.4.norm1.weight' has no trained weights of this"
    ):
        load_model("head:zoo:vit-m,depth=6", num_classes=3)
    for option in ("heads=2", "debth=2"):
        with pytest.raises(
            UserError, match="does not fit trained weights: keep fewer of their layers, as depth=4, or read"
        ):
            load_model(f"head:zoo:vit-m,{option}", num_classes=3)


@needs_timm
def test_timm_weights_bring_their_preprocessing_and_classes(monkeypatch):
    load_model("fresh:timm:test_resnet")
    import timm

    create = timm.create_model
    asked = []

    def from_cache(name, pretrained=False, **options):
        asked.append(pretrained)
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", from_cache)
    network = load_model("timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k", depth=1)
    assert asked == [True]
    assert network.preprocessing.size == (224, 224)
    assert network.preprocessing.mean == network.preprocessing.std == (0.5, 0.5, 0.5)
    assert (network.preprocessing.crop_ratio, network.preprocessing.interpolation) == (0.9, "bicubic")
    assert network.num_classes == 1000
    assert network.classes[:2] == ("n01440764", "n01443537")  # tench, goldfish
    assert load_model("fresh:timm:resnet18", channels=1).body.conv1.in_channels == 1

    monkeypatch.setattr(timm, "create_model", lambda *args, **options: [][0])
    with pytest.raises(UserError, match=r"weights of 'timm:resnet18' cannot be had: .*; connect.*fresh:timm:resnet18"):
        load_model("timm:resnet18")


def test_a_missing_extra_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"timm models need the extra 'vision': pip install 'osmose\[vision\]'"):
        load_model("timm:resnet18")


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("zoo:cnn-t", {}, "unknown zoo model 'cnn-t': did you mean 'cnn-s'?"),
        ("fresh:zoo:vit-xss", {}, "unknown zoo model 'vit-xss': did you mean 'vit-xs'?"),
        ("cnn-s", {}, "unknown model 'cnn-s': did you mean 'zoo:cnn-s'?"),
        ("fresh:zo:cnn-s", {}, "unknown model 'fresh:zo:cnn-s': did you mean 'fresh:zoo:cnn-s'?"),
        pytest.param(
            "fresh:timm:resnt18", {}, "unknown timm model 'resnt18': did you mean 'resnet18'?", marks=needs_timm
        ),
        pytest.param(
            "fresh:timm:resnet18", {"dept": 3}, "timm cannot build 'resnet18' with {'dept': 3}", marks=needs_timm
        ),
        ("fresh:zoo:vit-s", {"dept": 3}, "unknown option of 'fresh:zoo:vit-s': 'dept': did you mean 'depth'?"),
        (
            "fresh:zoo:vit-s",
            {"width": 48, "heads": 5},
            "a width of 48 cannot be shared by 5 heads: choose a divisor of it",
        ),
        ("zoo:vit-s", {"depth": 3}, "unknown option of 'zoo:vit-s': 'depth'"),
        ("fresh:zoo:vit-s,dept=3", {}, "unknown option of 'fresh:zoo:vit-s,dept=3': 'dept': did you mean 'depth'?"),
        ("fresh:zoo:vit-s,depth", {}, "'depth' is no option: write KEY=VALUE"),
        ("fresh:zoo:vit-s,depth=[3", {}, "'depth=[3' is no option: write KEY=VALUE"),
        ("fresh:zoo:vit-s,depth=many", {}, "cannot be built with {'depth': 'many'}"),
        (nn.Linear(1, 1), {"std_": 1}, "unknown option of 'module:Linear': 'std_': did you mean 'std'?"),
        ("fresh:zoo:vit-s", {"classes": ("a",), "num_classes": 2}, "num_classes is 2 but classes names 1"),
        ("fresh:file:student.safetensors", {}, "names weights, not an architecture; use 'fresh:zoo:NAME'"),
        ("file:absent.safetensors", {}, "there is no file 'absent.safetensors': check the path"),
    ],
)
def test_mistakes_are_named(name, options, line):
    with pytest.raises(UserError) as error:
        load_model(name, **options)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_absent_packaged_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    with pytest.raises(UserError, match=r"'zoo:cnn-s' has no weights in this installation.*'fresh:zoo:cnn-s'"):
        load_model("head:zoo:cnn-s", num_classes=2)


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def test_pickles_are_not_loaded(tmp_path):
    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Trap()))
    (tmp_path / "renamed.safetensors").write_bytes(pickle.dumps(Trap()))
    torch.save({"weight": torch.zeros(1)}, tmp_path / "zip.safetensors")
    (tmp_path / "broken.bin").write_bytes(b"")
    for path in tmp_path.iterdir():
        with pytest.raises(
            UserError, match=r"weights that can execute code are not loaded; convert.*save_file\(\.\.\.\)"
        ):
            load_model(f"file:{path}")


def test_damaged_and_foreign_files_are_named(tmp_path):
    network = load_model("fresh:zoo:cnn-xs")
    path = tmp_path / "student.safetensors"

    def refused(line):
        with pytest.raises(UserError, match=line) as error:
            load_model(f"file:{path}")
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)

    network.save(path)
    whole = path.read_bytes()
    for size in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused("is truncated or not a safetensors file")
    path.write_bytes(b"Index,Value\n" * 100)
    refused("is truncated or not a safetensors file")

    tensors = network.body.state_dict()
    for metadata in (None, {"format": "pt"}, {"architecture": '"llama"'}):
        save_file(tensors, path, metadata)
        refused("does not say what architecture .*load_state_dict.*load_model")
    load_model(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))).save(path)
    refused("does not say what architecture")

    network.save(path)
    network.architecture["name"] = "cnn-xxs"
    network.save(path)
    refused("cannot be built: unknown zoo model 'cnn-xxs'")
    network.architecture["name"] = "cnn-s"
    network.save(path)
    refused(r"does not fit its architecture")
    network.architecture["name"] = "cnn-xs"
    network.body.head = nn.Linear(32, 5)
    network.save(path)
    refused(r"\(5, 32\) for 'head.weight' in the file, \(10, 32\) in the network")

    path.unlink()
    with pytest.raises(UserError, match=r"the run '.*' has no student.safetensors"):
        load_model(f"file:{tmp_path}")
    (tmp_path / "result.json").write_text("{}")
    for key, missing in ((tmp_path, "student"), (tmp_path / "student1.safetensors", "student1")):
        with pytest.raises(
            UserError, match=f"is finished, but its {missing}.safetensors is not kept here: delete that folder"
        ):
            load_model(f"file:{key}")
    network.save(tmp_path / "student2.safetensors")
    with pytest.raises(
        UserError, match=r"unknown file '.*student1\.safetensors': did you mean '.*student2\.safetensors'\?"
    ):
        load_model(f"file:{tmp_path / 'student1.safetensors'}")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value, packaged):
    path = packaged / "cnn-s.safetensors"
    network = load_model("zoo:cnn-s")
    network.body.layers[1][1].running_var[3] = value
    network.save(path)
    for name in ("zoo:cnn-s", "head:zoo:cnn-s", f"file:{path}", network, network.body):
        with pytest.raises(UserError, match=r"holds NaN or infinity in 'layers.1.1.running_var'"):
            load_model(name, num_classes=10)


def test_a_network_is_returned_as_it_is():
    network = load_model("fresh:zoo:mlp-xs")
    assert load_model(network) is network


def test_a_source_is_one_registered_module(monkeypatch):
    monkeypatch.setitem(SOURCES, "mine", "osmose.models.sources.zoo")
    assert load_model("fresh:mine:mlp-xs").name == "fresh:mine:mlp-xs"


def test_show_models_tells_what_is_packaged(packaged):
    rows = {row["name"]: row for row in show_models()}
    assert set(rows) == {f"zoo:{name}" for name in ZOO}
    row = rows["zoo:vit-xs"]
    assert row["params"] == sum(tensor.numel() for tensor in load_file(packaged / "vit-xs.safetensors").values())
    assert row["bytes"] == (packaged / "vit-xs.safetensors").stat().st_size
    assert (row["test_accuracy"], row["heldout_accuracy"], row["recipe"]) == (75.5, 80.0, {"epochs": 60})
    assert (row["family"], row["source"]) == ("transformer", "zoo")
    assert rows["zoo:mlp-xs"]["test_accuracy"] is None
    assert rows["zoo:mlp-xs"]["bytes"] == 0


def test_options_may_follow_the_name():
    network = load_model("fresh:zoo:vit-s,patch=4,depth=2", channels=3, image_size=(32, 32))
    same = load_model("fresh:zoo:vit-s", channels=3, image_size=(32, 32), patch=4, depth=2)
    assert network.architecture == same.architecture
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), same.parameters(), strict=True))
