"""Recipes: one meaning from flags, YAML and keyword arguments; mistakes that name the key."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from osmose import recipe as recipes
from osmose.api import run
from osmose.cli import _changes, _parser
from osmose.data import load_data
from osmose.errors import UserError
from osmose.methods import METHODS
from osmose.methods.learner import looks
from osmose.models import load_model
from osmose.models.load_generator import load_generator
from osmose.models.model import evaluating
from osmose.recipe import changed_stages, completed, merge, resolve, stages
from osmose.tasks import backbones, images

BASE = {"teacher": "zoo:cnn-s", "student": "zoo:vit-s"}


def from_flags(*flags):
    options, extra = _parser().parse_known_args(["transfer", *flags])
    return _changes(options, extra)


def test_flags_yaml_and_keywords_give_equal_recipes():
    flags = from_flags(
        "--teacher", "zoo:cnn-s", "zoo:vit-xs", "--student", "zoo:vit-s", "--data", "idx:somewhere", "--data.fraction", "0.5",
        "--target", "partition", "--temperature", "2", "--lr", "1e-3", "--method.optimiser.clip=1.5", "--optimiser", "adamw",
        "--epochs", "3", "--batch-size", "32", "--view.crop", "shift", "--view.scale", "[0.5, 1]", "--seed", "7",
        "--checkpoint-every", "10", "--precision", "bf16-mixed", "--data.labelled", "false",
    )  # fmt: skip
    written = yaml.safe_load("""
        teacher: [zoo:cnn-s, zoo:vit-xs]
        student: zoo:vit-s
        data: {name: "idx:somewhere", fraction: 0.5, labelled: false}
        method: {name: distill, target: partition, temperature: 2, optimiser: {name: adamw, lr: 1e-3, clip: 1.5}}
        epochs: 3
        batch_size: 32
        view: {crop: shift, scale: [0.5, 1]}
        seed: 7
        checkpoint_every: 10
        precision: bf16-mixed
    """)
    keywords = {
        "teacher": ["zoo:cnn-s", "zoo:vit-xs"], "student": "zoo:vit-s", "epochs": 3, "batch_size": 32, "seed": 7,
        "data": {"name": "idx:somewhere", "fraction": 0.5, "labelled": False}, "view": {"crop": "shift", "scale": (0.5, 1.0)},
        "method": {"target": "partition", "temperature": 2.0, "optimiser": {"name": "adamw", "lr": 0.001, "clip": 1.5}},
        "checkpoint_every": 10, "precision": "bf16-mixed",
    }  # fmt: skip
    first, second, third = (resolve(values).plain() for values in (flags, written, keywords))
    assert first == second == third
    assert first["method"]["optimiser"]["lr"] == 0.001
    assert first["view"]["scale"] == [0.5, 1.0]


@pytest.mark.parametrize(
    "method",
    [
        "supervised",
        "distill",
        {"name": "distill", "target": {"positive": "mean", "negative": "nobody"}},
        {"kl_weight": 0.5, "top_k": 10, "optimiser": {"schedule": "plateau", "plateau": {"patience": 3}}},
    ],
)
def test_resolving_what_was_resolved_changes_nothing(method):
    once = resolve({**BASE, "method": method}).plain()
    assert resolve(once).plain() == once
    assert resolve(yaml.safe_load(yaml.safe_dump(once))).plain() == once
    assert resolve(json.loads(json.dumps(once))).plain() == once


@settings(deadline=None, max_examples=15)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "epochs": st.integers(1, 9), "seed": st.integers(0, 2**40), "workers": st.integers(0, 3),
            "threads": st.none() | st.integers(1, 4), "deterministic": st.booleans(),
            "view": st.fixed_dictionaries({}, optional={"flip": st.floats(0, 1), "count": st.none() | st.integers(1, 9)}),
            "method": st.fixed_dictionaries(
                {}, optional={"temperature": st.floats(0.01, 100), "target": st.sampled_from(["partition", "flip-t"])}
            ),
        },
    )
)  # fmt: skip
def test_any_settings_survive_a_round_trip(values):
    once = resolve({**BASE, **values}).plain()
    assert resolve(yaml.safe_load(yaml.safe_dump(once))).plain() == once
    for key, value in values.items():
        assert value == once[key] or value.items() <= once[key].items()


def test_methods_come_as_typed_objects():
    cls, arguments = resolve(
        {**BASE, "method": {"target": {"negative": "nobody"}, "temperature": 2}}
    ).method_arguments()
    assert cls is METHODS["distill"]
    assert arguments["target"].negative == "nobody"
    assert arguments["optimiser"].rate
    assert isinstance(arguments["temperature"], float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, "unknown key 'epoch': did you mean 'epochs'?"),
        ({"data": {"fractoin": 1}}, "unknown key 'data.fractoin': did you mean 'data.fraction'?"),
        ({"view": {"corp": "shift"}}, "unknown key 'view.corp': did you mean 'view.crop'?"),
        ({"method": {"temprature": 1}}, "unknown key 'method.temprature': did you mean 'method.temperature'?"),
        ({"method": {"optimiser": {"lrr": 1}}}, "unknown key 'method.optimiser.lrr': did you mean 'method.optimiser.lr'?"),
        ({"method": {"target": {"nutral": "mean"}}}, "unknown key 'method.target.nutral': did you mean 'method.target.neutral'?"),
        ({"method": {"name": "supervised", "target": "x"}}, "unknown key 'method.target': did you mean 'method.train'?"),
        ({"method": "distil"}, "unknown method 'distil': did you mean 'distill'?"),
        ({"method": {"student": "zoo:x"}}, "unknown key 'method.student': did you mean 'method.target'?"),
        ({1: 2}, None),
        ({"epochs": "many"}, "key 'epochs' is 'many': expected int"),
        ({"epochs": 1.5}, "key 'epochs' is 1.5: expected int"),
        ({"epochs": True}, "key 'epochs' is True: expected int"),
        ({"epochs": None}, "key 'epochs' is empty: give it a value, or leave it out for its default"),
        ({"epochs": 0}, "key 'epochs' is 0: set it to at least 1"),
        ({"student": None}, "key 'student' is empty: give it a value, or leave it out for its default"),
        ({"student": 3}, "key 'student' is 3: expected str or list"),
        ({"student": ""}, "the recipe names no student: give --student; see `osmose show models`"),
        ({"data": 5}, None),
        ({"data": {"labelled": "perhaps"}}, "key 'data.labelled' is 'perhaps': expected bool"),
        ({"data": {"image_size": [1, 2]}}, "key 'data.image_size' is [1, 2]: expected int or none"),
        ({"view": {"crop": "shfit"}}, "key 'view.crop' is 'shfit': expected one of ['none', 'shift', 'corners', 'resized']"),
        ({"view": {"scale": [1, 2, 3]}}, "key 'view.scale' is [1, 2, 3]: expected list with 2 elements"),
        ({"view": {"scale": 1}}, "key 'view.scale' is 1: expected list"),
        ({"method": {"lr": 0.1}}, "unknown key 'method.lr': did you mean 'method.optimiser.lr'?"),
        ({"optimizer": "adam"}, "unknown key 'optimizer': did you mean 'method.optimiser'?"),
        ({"lr": 0.1}, "unknown key 'lr': did you mean 'method.optimiser.lr'?"),
        ({"method": "interactive", "roundz": 2}, "unknown key 'roundz': did you mean 'method.rounds'?"),
        ({"method": "interactive", "width": 256}, "unknown key 'width': did you mean 'method.message.width'?"),
        ({"method": "interactive", "communicator_optimizer": {}},
         "unknown key 'communicator_optimizer': did you mean 'method.communicator_optimiser'?"),
        ({"crop": "shift"}, "unknown key 'crop': did you mean 'view.crop'?"),
        ({"method": {"target": "techer"}}, "unknown target 'techer': did you mean 'teacher'?"),
        ({"precision": "fp8"}, "key 'precision' is 'fp8': expected one of ['32-true', 'bf16-mixed']"),
        ({"method": {"optimiser": {"name": "sgdd"}}},
         "key 'method.optimiser.name' is 'sgdd': expected one of ['sgd', 'adam', 'adamw', 'lion', 'adamw-8bit', 'lion-8bit']"),
        ({"method": {"optimiser": {"lr": None}}},
         "key 'method.optimiser.lr' is empty: give it a value, or leave it out for its default"),
        ({"method": {"name": "mokd", "t_head_optimiser": {"momentum": 2}}},
         "key 'method.t_head_optimiser.momentum' is 2.0: set it to a number from 0 to below 1"),
        ({"method": {"optimiser": {"plateau": 3}}},
         "key 'method.optimiser.plateau' is 3: expected a section with factor, patience, reductions"),
        ({"method": {"target": {"neutral": "maen"}}},
         "key 'method.target.neutral' is 'maen': expected one of ['teacher', 'initial', 'mean', 'nobody']"),
        ({"method": {"name": "hard", "optimiser": {"lr": 0.02, "momentum": 0.9}}},
         "method.optimiser has a momentum and no name: method hard takes adam, which has none; "
         "give name: sgd, or leave momentum out"),
        ({"method": None}, None),
        ({"method": {"name": 3}}, None),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_name_the_key(change, message):
    with pytest.raises(UserError) as error:
        resolve({**BASE, **change})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250
    if message:
        assert str(error.value) == message


@pytest.mark.parametrize(
    "method",
    [
        {"target": {"class_path": "spy.Spy"}},
        {"target": {"class_path": "spy.Spy", "init_args": {}}},
        {"target": "spy.Spy"},
        {"optimiser": {"class_path": "spy.Spy"}},
        {"optimiser": "spy.Spy"},
        {"optimiser": {"plateau": "spy.Spy"}},
        {"optimiser": {"plateau": {"class_path": "spy.Spy"}}},
        {"class_path": "spy.Spy"},
        {"top_k": {"class_path": "spy.Spy"}},
    ],
)
def test_a_recipe_imports_nothing(method, tmp_path, monkeypatch):
    (tmp_path / "spy.py").write_text("class Spy: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("spy", None)
    with pytest.raises(UserError):
        resolve({**BASE, "method": method})
    assert "spy" not in sys.modules


def test_yaml_never_builds_objects(tmp_path):
    (tmp_path / "evil.yaml").write_text("student: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(UserError, match=r"^recipe .*evil\.yaml is not YAML: could not determine a constructor"):
        recipes.load(str(tmp_path / "evil.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "is not YAML: "),
        ("a: 1\nb: {c: 1, d: 2, c: 3}\n", "is not YAML: key 'c' is given twice in "),
        ("- a\n- b\n", "is not a mapping of keys to values"),
        ("", "is not a mapping"),
    ],
)
def test_files_that_are_no_recipes(tmp_path, text, message):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        recipes.load(str(tmp_path / "r.yaml"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_recipes_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"^unknown recipe 'defualt': did you mean 'default'\?$"):
        recipes.load("defualt")
    with pytest.raises(UserError, match=r"^cannot read recipe .*nothing\.yaml"):
        recipes.load(str(tmp_path / "nothing.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"^cannot read recipe"):
        recipes.load(str(tmp_path / "binary.yaml"))


def test_merge_goes_section_by_section():
    base = {"a": 1, "view": {"crop": "shift", "pad": 2}, "method": {"name": "distill", "temperature": 2}}
    assert merge(base, {"view": {"pad": 3}}) == {**base, "view": {"crop": "shift", "pad": 3}}
    assert merge(base, {"method": {"kl_weight": 1}})["method"] == {"name": "distill", "temperature": 2, "kl_weight": 1}
    assert merge(base, {"method": "supervised"})["method"] == {"name": "supervised"}  # another method's settings go
    assert merge({"data": "a"}, {"data": {"fraction": 0.5}})["data"] == {"name": "a", "fraction": 0.5}
    assert merge({"data": {"name": "a", "fraction": 0.5}}, {"data": "b"})["data"] == {"name": "b"}
    assert base["view"] == {"crop": "shift", "pad": 2}


def test_a_folder_or_file_of_a_packaged_recipes_name_does_not_take_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packaged = recipes.load("default")
    (tmp_path / "default").mkdir()
    assert recipes.defaults({}) == recipes.load("default") == packaged
    (tmp_path / "default").rmdir()
    (tmp_path / "default").write_text("epochs: 1\n")
    assert recipes.defaults({}) == recipes.load("default") == packaged
    assert recipes.load("./default") == {"epochs": 1}


def test_what_a_transfer_starts_from():
    packaged = recipes.load("default")
    assert recipes.defaults({}) == packaged
    assert recipes.defaults({"data": packaged["data"], "epochs": 3}) == packaged
    assert recipes.defaults({"data": {"fraction": 0.5}}) == packaged
    assert recipes.defaults({"method": {"target": "teacher"}}) == packaged
    assert set(packaged) - set(recipes.defaults({"method": "supervised"})) == {"teacher", "method"}
    with pytest.raises(UserError, match="unknown data set 'fashion-mnits': did you mean"):
        recipes.defaults({"data": "fashion-mnits"})


def test_on_other_data_the_papers_settings_hold(grey):
    """`osmose transfer --teacher T --student S --data D --target partition`, without naming the method."""
    changes = {**BASE, "data": {"name": grey}, "method": {"target": "partition"}}
    recipe = resolve(merge(recipes.defaults(changes), changes)).plain()
    assert (recipe["epochs"], recipe["method"]["name"], recipe["method"]["target"]) == (20, "distill", "partition")
    assert recipe["method"]["optimiser"]["lr"] == 1e-4
    assert recipe["view"]["crop"] == "none"


STAGES = {
    "epochs": 3,
    "method": {"name": "distill", "target": "partition"},
    "stages": [
        {"name": "one", "teacher": "zoo:a", "student": "zoo:s", "method": {"temperature": 2}},
        {"name": "two", "teacher": ["zoo:b", "$one"], "student": "$one", "epochs": 5},
    ],
}


def test_a_recipe_saved_before_a_key_existed_has_its_default():
    whole = resolve({**BASE, "epochs": 3, "method": {"name": "distill", "optimiser": {"lr": 0.5}}}).plain()
    saved = {key: value for key, value in whole.items() if key not in ("blend", "workers")}
    saved["method"] = {key: value for key, value in whole["method"].items() if key != "top_k"}
    saved["method"]["optimiser"] = {"lr": 0.5}
    assert completed(saved) == whole
    assert completed({"stages": [{"name": "a", **saved}]}) == {"stages": [{"name": "a", **whole}]}
    assert completed({**whole, "gone": 1}) == {**whole, "gone": 1}
    foreign = {**whole, "method": {"name": "of another version"}}
    assert completed(foreign) == foreign


def test_stages_share_the_common_keys():
    first, second = stages(STAGES).items()
    assert first == ("one", {
        "epochs": 3, "method": {"name": "distill", "target": "partition", "temperature": 2}, "teacher": "zoo:a",
        "student": "zoo:s",
    })  # fmt: skip
    assert (second[1]["epochs"], second[1]["student"], second[1]["teacher"]) == (5, "$one", ["zoo:b", "$one"])


def test_changes_reach_every_stage_but_leave_earlier_products():
    first, second = stages(changed_stages(STAGES, {"student": "zoo:n", "teacher": "zoo:t", "epochs": 9})).values()
    assert (first["student"], first["teacher"], first["epochs"]) == ("zoo:n", "zoo:t", 9)
    assert (second["student"], second["teacher"], second["epochs"]) == ("$one", ["zoo:b", "$one"], 9)


def test_a_recipe_without_stages_is_one():
    assert stages(BASE) == {"": BASE}


@pytest.mark.parametrize(
    ("given_stages", "message"),
    [
        ([{"name": "a", "student": "$b"}], "stage 'a' uses $b, which no earlier stage makes: earlier are []"),
        ([{"name": "a", "student": "x"}, {"name": "b", "student": "x", "teacher": ["y", "$c"]}],
         "stage 'b' uses $c, which no earlier stage makes: earlier are ['a']"),
        ([{"name": "a", "student": "$a"}], "stage 'a' uses $a, which no earlier stage makes: earlier are []"),
        ([{"student": "x"}], "stage 1 needs a name of its own, of letters, digits, '-' and '_'"),
        ([{"name": "a"}, {"name": "a"}], "stage 2 needs a name of its own, of letters, digits, '-' and '_'"),
        ([{"name": "../a"}], "stage 1 needs a name of its own, of letters, digits, '-' and '_'"),
        (["a"], "stage 1 needs a name of its own, of letters, digits, '-' and '_'"),
        ([], "recipe key 'stages' is not a list of stages: each begins with '- name: ...'"),
        ({"a": 1}, "recipe key 'stages' is not a list of stages: each begins with '- name: ...'"),
    ],
)  # fmt: skip
def test_stages_with_mistakes(given_stages, message):
    with pytest.raises(UserError) as error:
        stages({"stages": given_stages})
    assert str(error.value) == message


def test_describe_lists_every_key_with_its_meaning():
    for cls in (recipes.Recipe, *METHODS.values()):
        rows = recipes.describe(cls)
        assert all(row["meaning"] for row in rows if row["key"] != "method.name"), [r for r in rows if not r["meaning"]]
    keys = {row["key"]: row["default"] for row in recipes.describe(METHODS["distill"])}
    assert keys["optimiser.plateau.patience"] == 20
    assert keys["optimiser.lr"] == 1e-4


def fresh(name):
    """The architecture behind a packaged recipe's model, with new weights."""
    return name if name.startswith("toy:") else f"fresh:{name.removeprefix('head:').removeprefix('fresh:')}"


def skip_without_timm(model):
    if "timm:" in model and find_spec("timm") is None:
        pytest.skip("needs the extra 'vision'")


def models(stage):
    teacher = stage.get("teacher") or []
    student = stage["student"]
    students = [student] if isinstance(student, str) else student
    return [*students, *([teacher] if isinstance(teacher, str) else teacher)]


@pytest.mark.parametrize(
    ("name", "grids"), [("mokd-imagenet", [14, 6]), ("mokd-imagenet100", [14, 6]), ("mokd-cifar10", [8, 4])]
)
def test_transformers_of_mokds_recipes_average_their_last_tokens_and_take_local_crops(name, grids):
    ((_, recipe),) = stages(recipes.load(name)).items()
    (model,) = [one for one in models(recipe) if ":vit_" in one]
    skip_without_timm(model)
    network = load_model(model, num_classes=0, channels=3)
    size = recipe["view"].get("global_size", 32)
    seen = looks(network, [(3, size, size), (3, recipe["view"]["local_size"], recipe["view"]["local_size"])])
    assert [look.layout.grid for look in seen] == [(side, side) for side in grids]
    torch.nn.init.normal_(network.body.norm.weight)
    with evaluating(network):
        outputs = network.run(torch.randn(2, 3, size, size))
    torch.testing.assert_close(outputs.features, outputs.tokens[:, 1:].mean(1))


PICTURES = [name for name in recipes.packaged() if not name.startswith("language")]


@pytest.mark.parametrize("name", PICTURES)
def test_packaged_recipes_parse_and_build_their_networks(name):
    found = stages(recipes.load(name))
    for stage in found.values():
        resolve(stage)
        for model in models(stage):
            if model.startswith("$"):
                continue
            skip_without_timm(model)
            if stage["method"] == {"name": "autoencode"}:
                with torch.device("meta"):
                    generator = load_generator(model, channels=1, image_size=(28, 28))
                assert all(parameter.is_meta for parameter in generator.parameters())
                continue
            with torch.device("meta"):
                network = load_model(
                    fresh(model), num_classes=10, channels=3 if "timm:" in model else 1, image_size=(28, 28)
                )
            assert all(parameter.is_meta for parameter in network.parameters())
            assert network.num_classes == (1 if "toy:" in model else 10)


@pytest.mark.parametrize("name", PICTURES)
def test_packaged_recipes_run_shortened(name, colour, tmp_path, monkeypatch):
    """One epoch on few samples; where the recipe's data or its large networks are not here, small ones of their kind."""

    def few(split):
        return split.subset(torch.arange(0, len(split), max(1, len(split) // 50)))

    def load_few(*args, **settings):
        data = load_data(*args, **settings)
        return replace(data, heldout=few(data.heldout), test=lambda: few(data.test()))

    for task in (images, backbones):
        monkeypatch.setattr(task, "load_data", load_few)

    def small(model):
        if model.startswith(("$", "toy:")) or model == "fresh:vae":
            return model
        cnn = "fresh:zoo:cnn-s" if name.startswith("mokd") else "fresh:nix:cnn"  # which shows no feature map
        model = {"fresh:nix:resnet18": cnn, "fresh:nix:vit-cifar10": "fresh:nix:vit"}.get(model, model)
        if "timm:" not in model:
            return fresh(model)
        skip_without_timm(model)
        tiny = "fresh:timm:test_vit" if ("vit" in model or "pit" in model) else "fresh:timm:test_resnet"
        if not model.startswith("head:"):
            return tiny
        load_model(tiny, num_classes=7, channels=3).save(tmp_path / "trained.safetensors")
        return f"head:file:{tmp_path / 'trained.safetensors'}"

    shortened = {}
    for stage_name, stage in stages(recipes.load(name)).items():
        embedded = stage["data"] in ("fashion-mnist-mini", "cosine")
        size = 112 if "imagenet" in name else 28  # patches of 16 and of 7
        pictures = {"name": colour, "image_size": size, "fraction": 0.5, "heldout": 0.1}
        data = {"fraction": 0.005} if embedded else pictures
        teacher = stage.get("teacher")
        short = {
            "epochs": 1,
            "batch_size": 20,
            "workers": 0,
            "threads": 1,
            "student": [small(one) for one in stage["student"]]
            if isinstance(stage["student"], list)
            else small(stage["student"]),
            "data": data,
        }
        if teacher:
            short["teacher"] = small(teacher) if isinstance(teacher, str) else [small(one) for one in teacher]
        shortened[stage_name] = merge(stage, short)
    if list(shortened) == [""]:
        result = run(shortened[""], output=tmp_path / "run")
        finished, last = [result.numbers], tmp_path / "run"
    else:
        result = run({"stages": [{"name": key, **value} for key, value in shortened.items()]}, output=tmp_path / "run")
        finished, last = list(result.numbers["stages"].values()), tmp_path / "run" / list(shortened)[-1]
    assert len(finished) == len(shortened)
    for numbers in finished:
        measured = next(numbers[key] for key in ("mse_after", "neighbours_after", "accuracy_after") if key in numbers)
        assert 0 <= measured <= 100
    if name == "vae":
        assert load_generator(f"file:{last}", channels=1, image_size=(28, 28)).digest() == result.student.digest()
        return
    members = getattr(result.student, "members", {"student": result.student})
    for role, network in members.items():
        assert load_model(f"file:{last}/{role}.safetensors").digest() == network.digest()


def test_recipes_are_read_without_heavy_imports():
    script = (
        "import sys, osmose.recipe; print([m for m in ('timm', 'torchvision', 'pyarrow', 'PIL') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_stages_share_keys_of_data_that_each_names():
    found = stages(recipes.load("language-two-domains"))
    assert {name: (stage["data"]["name"], resolve(stage).data.length) for name, stage in found.items()} == {
        "base": ("text:comedies", 256),
        "teacher": ("text:histories", 256),
    }


def test_another_text_is_cut_as_the_recipes_own():
    changed = changed_stages(recipes.load("language-smollm2"), {"data": "text:comedies"})
    settings = resolve(changed).data
    assert (settings.name, settings.length, settings.separator) == ("text:comedies", 256, "\n\n")
    assert resolve({"student": "x", "data": "text:comedies", "method": "language"}).batch_size == 16
    assert resolve({"student": "x", "data": "text:comedies", "method": "language", "batch_size": 8}).batch_size == 8
