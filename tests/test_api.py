"""The Python functions: names or modules in, a trained copy and numbers out."""

import copy
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

import osmose
from osmose import api
from osmose.data import load_data
from osmose.errors import UserError
from osmose.evaluate import predict
from osmose.models import load_model

SETTINGS = {"epochs": 2, "batch_size": 40, "threads": 1, "log_every": 4}
METHOD = {"target": "partition", "optimiser": {"lr": 2.0}}


def linear(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(144, 4))


class Dropping(nn.Module):
    """A module with dropout and batch normalisation, in training mode, whose features the network hooks."""

    def __init__(self, seed):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
            self.drop, self.fc = nn.Dropout(0.2), nn.Linear(400, 4)

    def forward(self, x):
        return self.fc(self.drop(self.norm(self.conv(x)).relu().flatten(1)))


@pytest.fixture
def teacher(grey):
    """A linear network that does better than chance, so that it passes the pair check."""
    data = load_data(grey)
    net = linear(1)
    x, y = data.train.inputs.read(torch.arange(len(data.train))).float() / 255, data.train.labels
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    return net


def untouched(module):
    """What must stay as it is."""
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    hooks = [len(part._forward_pre_hooks) + len(part._forward_hooks) for part in module.modules()]
    modes = [part.training for part in module.modules()]
    grads = [(p.requires_grad, p.grad) for p in module.parameters()]
    return weights, hooks, modes, grads


def same(before, after):
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert before[1:] == after[1:]


def test_given_modules_are_left_as_they_are(grey, teacher, tmp_path):
    student = Dropping(2).train()
    before = untouched(student), untouched(teacher)
    result = osmose.transfer(
        student=student, teacher=teacher, data=grey, output=tmp_path / "run", method=METHOD, **SETTINGS
    )
    same(before[0], untouched(student))
    same(before[1], untouched(teacher))
    assert not torch.equal(result.student.body.fc.weight, student.fc.weight)
    assert not result.student.training

    split = load_data(grey).test()
    right = predict(result.student, split).argmax(-1) == split.labels
    assert result.numbers["accuracy_after"] == pytest.approx(100 * right.float().mean().item(), abs=1e-4)
    assert result.numbers["teacher"].startswith("module:Sequential-")
    assert result.folder == tmp_path / "run"

    again = osmose.transfer(
        student=student, teacher=teacher, data=grey, output=tmp_path / "run", method=METHOD, **SETTINGS
    )
    assert again.numbers == result.numbers
    assert again.student.digest() == result.student.digest()
    same(before[0], untouched(student))


def test_a_module_without_convolutions_takes_the_datas_channels(grey, teacher, tmp_path):
    arguments = {"student": linear(3), "teacher": teacher, "data": grey, "output": tmp_path / "run", "method": METHOD}
    first = osmose.transfer(**arguments, **SETTINGS)
    assert first.student.preprocessing.channels == 1
    assert osmose.transfer(**arguments, **SETTINGS).student.preprocessing.channels == 1


def test_other_weights_are_another_run(grey, teacher, tmp_path, monkeypatch):
    """Two modules of one class must not be taken for each other's finished run."""
    monkeypatch.chdir(tmp_path)
    arguments = {"teacher": teacher, "data": grey, "method": METHOD, **SETTINGS}
    first = osmose.transfer(student=linear(3), **arguments)
    second = osmose.transfer(student=linear(4), **arguments)
    assert first.folder != second.folder
    assert first.student.digest() != second.student.digest()
    assert osmose.transfer(student=linear(3), **arguments).folder == first.folder
    with pytest.raises(UserError, match="holds a run of another recipe"):
        osmose.transfer(student=linear(4), output=first.folder, **arguments)


def test_frozen_layers_of_a_module_stay_frozen(grey, teacher, tmp_path):
    student = Dropping(2)
    student.conv.requires_grad_(False)
    result = osmose.transfer(
        student=student, teacher=teacher, data=grey, output=tmp_path / "run", method=METHOD, **SETTINGS
    )
    assert torch.equal(result.student.body.conv.weight, student.conv.weight)
    assert not torch.equal(result.student.body.fc.weight, student.fc.weight)
    with pytest.raises(UserError, match=r"^all parameters to be trained are frozen: "):
        osmose.transfer(student=student.requires_grad_(False), teacher=teacher, data=grey, output=tmp_path / "none")


def test_what_is_neither_name_nor_module(grey):
    for given in (
        {"student": Dropping, "teacher": "zoo:cnn-s"},
        {"student": "zoo:cnn-s", "teacher": ["zoo:cnn-xs", 3]},
    ):
        with pytest.raises(UserError, match=r"^student and teachers are names or modules, (type|int) is neither"):
            osmose.transfer(data=grey, **given)


def test_a_network_with_its_own_preprocessing(grey, teacher, tmp_path):
    normalised = load_model(linear(3), mean=(0.5,), std=(0.25,))
    result = osmose.transfer(
        student=normalised, teacher=teacher, data=grey, output=tmp_path / "run", method=METHOD, **SETTINGS
    )
    assert result.student.preprocessing.mean == (0.5,)
    assert result.student is not normalised


def test_the_returned_student_is_the_files(grey, tmp_path):
    result = osmose.transfer(
        student="fresh:zoo:cnn-s",
        teacher="fresh:zoo:vit-xs",
        data=grey,
        output=tmp_path / "run",
        method=METHOD,
        **SETTINGS,
    )
    assert osmose.load_model(f"file:{tmp_path / 'run'}").digest() == result.student.digest()
    again = osmose.transfer(
        student="fresh:zoo:cnn-s",
        teacher="fresh:zoo:vit-xs",
        data=grey,
        output=tmp_path / "run",
        method=METHOD,
        **SETTINGS,
    )
    assert again.student.digest() == result.student.digest()
    numbers = api.evaluate(f"file:{tmp_path / 'run'}", data=grey)
    assert numbers["accuracy"] == result.numbers["accuracy_after"]
    heldout = api.evaluate(result.student, data=grey, part="heldout")
    assert heldout["accuracy"] == result.numbers["heldout"]["accuracy_after"]


def test_several_teachers_by_name_and_as_modules(grey, teacher, tmp_path):
    result = osmose.transfer(
        student="fresh:zoo:mlp-xs", teacher=[teacher, "fresh:zoo:cnn-xs"], data=grey, output=tmp_path / "run", method=METHOD,
        **SETTINGS,
    )  # fmt: skip
    assert set(result.numbers["share"]) == {"initial", "teacher1", "teacher2"}
    assert len(result.numbers["teacher_accuracy"]) == 2


def test_evaluate_leaves_a_module_as_it_is(grey):
    module = Dropping(1).train()
    before = untouched(module)
    numbers = api.evaluate(module, data=grey)
    same(before, untouched(module))
    split = load_data(grey).test()
    right = copy.deepcopy(module).eval()(split.inputs.read(torch.arange(80)).float() / 255).argmax(-1) == split.labels
    assert numbers["accuracy"] == pytest.approx(100 * right.float().mean().item())
    assert api.evaluate(linear(1), data=grey)["samples"] == 80
    with pytest.raises(UserError, match=r"knows 5 classes, .* has 4"):
        api.evaluate(nn.Sequential(nn.Flatten(), nn.Linear(144, 5)), data=grey)


def test_evaluate_numbers(monkeypatch, grey):
    data = load_data(grey)
    numbers = replace(data, task="regression", num_classes=None, classes=None, test=lambda: with_floats(data.test()))
    monkeypatch.setattr(api, "load_data", lambda *_, **__: numbers)
    module = nn.Sequential(nn.Flatten(), nn.Linear(144, 1))
    said = api.evaluate(module, data=grey)
    split = numbers.test()
    values = copy.deepcopy(module)(split.inputs.read(torch.arange(80)).float() / 255)[:, 0]
    assert said["mse"] == pytest.approx(((values - split.labels) ** 2).mean().item())
    assert "accuracy" not in said
    with pytest.raises(UserError, match="has 4 outputs and .* one number a sample"):
        api.evaluate(nn.Sequential(nn.Flatten(), nn.Linear(144, 4)), data=grey)


def with_floats(split):
    return replace(split, labels=split.labels.float())


def test_stages_run_in_order_and_again_only_where_unfinished(grey, tmp_path, monkeypatch):
    recipe = {
        **SETTINGS, "data": grey, "teacher": "fresh:zoo:cnn-xs", "method": {"name": "distill", **METHOD},
        "stages": [
            {"name": "one", "student": "fresh:zoo:mlp-xs"},
            {"name": "two", "student": "$one", "teacher": ["fresh:zoo:vit-xs", "$one"], "seed": 3},
        ],
    }  # fmt: skip
    monkeypatch.setattr("osmose.pair_check._check_order", lambda *_: None)  # what one made may be at chance
    result = osmose.run(recipe, output=tmp_path / "run")
    one, two = (result.numbers["stages"][name] for name in ("one", "two"))
    assert two["accuracy_before"] == one["accuracy_after"]
    assert two["teacher_accuracy"][1] == one["accuracy_after"]
    assert osmose.load_model(f"file:{tmp_path / 'run' / 'two'}").digest() == result.student.digest()

    for name in ("result.json", "student.safetensors"):
        (tmp_path / "run" / "two" / name).unlink()
    began = (tmp_path / "run" / "one" / "result.json").stat().st_mtime_ns
    again = osmose.run(recipe, output=tmp_path / "run")
    assert again.student.digest() == result.student.digest()
    assert (tmp_path / "run" / "one" / "result.json").stat().st_mtime_ns == began

    for name in ("result.json", "recipe.yaml"):
        (tmp_path / "run" / name).unlink()
    for _ in range(2):  # every stage is finished, and the folder is theirs again
        assert osmose.run(recipe, output=tmp_path / "run").numbers == again.numbers


def test_stages_have_their_folder_for_themselves(grey, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("osmose.pair_check._check_order", lambda *_: None)
    first = {"name": "one", "student": "fresh:zoo:mlp-xs"}
    second = {"name": "two", "student": "$one", "seed": 3}
    common = {**SETTINGS, "data": grey, "teacher": "fresh:zoo:cnn-xs", "method": {"name": "distill", **METHOD}}
    stages = {**common, "stages": [first, second]}
    whole = osmose.run(stages, output="run")
    assert osmose.run(stages, output=tmp_path / "run").numbers == whole.numbers  # however the folder is spelled
    with pytest.raises(UserError, match=r"holds a run of another recipe \(.*seed"):
        osmose.run({**common, "stages": [first, {**second, "seed": 4}]}, output="run")
    alone = osmose.run({**common, "student": "fresh:zoo:mlp-xs"}, output="alone").numbers
    with pytest.raises(UserError, match="holds a run of another recipe"):
        osmose.run(stages, output="alone")
    assert json.loads((tmp_path / "alone" / "result.json").read_text()) == alone


def test_a_mistake_in_a_later_stage_is_found_before_the_first_one_runs(grey, tmp_path):
    recipe = {
        "data": grey, "stages": [
            {"name": "one", "student": "fresh:zoo:mlp-xs", "teacher": "fresh:zoo:cnn-xs"},
            {"name": "two", "student": "$one", "teacher": "fresh:zoo:cnn-xs", "epoch": 3},
        ],
    }  # fmt: skip
    with pytest.raises(UserError, match="unknown key 'epoch'"):
        osmose.run(recipe, output=tmp_path / "run")
    recipe["stages"][1] = {"name": "two", "student": "$one", "teacher": "zoo:cnn-ss"}
    with pytest.raises(UserError, match="unknown zoo model 'cnn-ss'"):
        osmose.run(recipe, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fresh", [False, True])
def test_a_mistake_that_only_the_first_stages_networks_show_leaves_the_folder_as_it_was(grey, tmp_path, fresh):
    one = {
        "name": "one",
        "student": "fresh:zoo:mlp-xs",
        "method": {"name": "supervised", "optimiser": METHOD["optimiser"]},
    }
    recipe = {**SETTINGS, "data": grey, "stages": [one]}
    if fresh:
        osmose.run(recipe, output=tmp_path / "run")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"}
    wrong = {**recipe, "stages": [{**one, "student": "zoo:mlp-xs"}]}  # of ten classes
    with pytest.raises(UserError, match="knows 10 classes"):
        osmose.run(wrong, output=tmp_path / "run", fresh=fresh)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"} == before
    osmose.run(recipe, output=tmp_path / "run")


def test_stages_with_different_numbers_of_devices_are_refused(grey, tmp_path):
    stages = [{"name": name, "student": "fresh:zoo:mlp-xs", "devices": n} for n, name in ((1, "one"), (2, "two"))]
    with pytest.raises(UserError, match="stages have different numbers of devices"):
        osmose.run({**SETTINGS, "data": grey, "method": "supervised", "stages": stages}, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_default_folder_is_a_function_of_the_recipe(plain):
    from osmose.recipe import resolve

    first = api.default_folder(resolve(plain()))
    assert first == api.default_folder(resolve(plain()))
    assert first != api.default_folder(resolve(plain(seed=1)))
    assert str(first).startswith("runs/mlp-xs-distill-")


@pytest.mark.parametrize("data", [5, ["a"], {"name": 5}])
def test_wrong_types_are_user_errors(data):
    with pytest.raises(UserError, match=r"^key 'data"):
        osmose.transfer(student="fresh:zoo:mlp-xs", teacher="fresh:zoo:cnn-xs", data=data)


def test_losses_and_targets_are_usable_in_anyones_own_loop():
    logits = torch.randn(4, 3, requires_grad=True)
    choice = osmose.targets.partition(torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))
    osmose.losses.kl_divergence(logits, choice.logits, temperature=2.0).backward()
    assert logits.grad is not None


def test_importing_osmose_imports_nothing_heavy():
    script = (
        "import sys, osmose; print([m for m in ('torch', 'numpy', 'lightning_fabric', 'rich') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_public_name_is_there():
    for name in osmose.__all__:
        assert getattr(osmose, name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = osmose.nothing


def test_a_model_is_measured_on_data_with_settings_of_its_own(colour):
    numbers = api.evaluate(
        load_model("fresh:zoo:cnn-xs", num_classes=3, channels=3, image_size=(8, 8)),
        data={"name": colour, "heldout": 0.5, "image_size": 8},
        part="heldout",
    )
    whole = load_data(colour, heldout=0.5)
    assert numbers["samples"] == len(whole.heldout)
