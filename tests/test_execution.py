"""From a recipe to a finished folder: the same as plain torch, interrupted or not, and honest about the test part."""

import copy
import errno
import io
import json
import os
import signal
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

from osmose import api, execution
from osmose.augmentors import load_augmentor
from osmose.data import load_data
from osmose.data.loader import Loader
from osmose.data.views import Views
from osmose.engine import checkpoint
from osmose.engine.interrupt import Interrupted
from osmose.engine.loop import Engine
from osmose.engine.optimiser import Optimiser
from osmose.errors import UserError
from osmose.evaluate import accuracy, negative_flips, positive_flips, predict
from osmose.methods import METHODS
from osmose.methods.supervised import Supervised
from osmose.models import load_model
from osmose.random import generator, seed_of
from osmose.recipe import resolve
from osmose.tasks import images

DROPOUT = {"student": "fresh:zoo:vit-m", "teacher": "fresh:zoo:cnn-xs"}
BATCH_NORM = {"student": "fresh:zoo:cnn-s", "teacher": "fresh:zoo:vit-xs"}
HARD = {
    "student": "fresh:zoo:cnn-s", "teacher": "fresh:zoo:vit-xs", "method": {
        "name": "hard", "augmentor": {"name": "affine", "noise": 0.1}, "target": "partition", "temperature": 2.0, "l_min": 0.74,
        "l_max": 0.75, "consecutive": 1, "augmentor_batch": 20, "optimiser": {"lr": 0.1, "schedule": "constant"},
    },
}  # fmt: skip
KL_ALONE = {"target": "teacher", "optimiser": {"schedule": "constant"}}
ADAM = {"student": "fresh:zoo:vit-m", "method": {"target": "partition", "optimiser": {"name": "adamw", "lr": 0.01}}}


@pytest.fixture(scope="module")
def undisturbed(execute, left, tmp_path_factory):
    """What runs leave that nothing disturbed, each run once."""
    done = {}

    def run(**changes):
        key = json.dumps(changes, sort_keys=True)
        if key not in done:
            folder = tmp_path_factory.mktemp("undisturbed") / "run"
            execute(folder, **changes)
            done[key] = left(folder)
        return done[key]

    return run


class Crash(BaseException):
    """A process that ends here and now."""


def crash():
    raise Crash


def test_a_whole_transfer_is_the_papers_algorithm_in_plain_torch(execute, tmp_path, grey):
    """KL+DP with batch normalisation, warm-up, cosine, clipping and two micro-batches, rebuilt from data and models alone."""
    settings = {"name": "sgd", "lr": 3.2, "clip": 0.5, "schedule": "cosine", "warmup_epochs": 0.5, "weight_decay": 1e-3}
    result = execute(
        tmp_path / "run", seed=4, accumulate=2, student="fresh:zoo:cnn-s", teacher="fresh:zoo:vit-xs",
        view={"crop": "shift", "pad": 2, "seed": 11}, method={"target": "partition", "optimiser": settings},
    )  # fmt: skip

    data = load_data(grey)
    build = {"num_classes": 4, "channels": 1, "image_size": (12, 12), "seed": 4}
    student = load_model("fresh:zoo:cnn-s", stream="student/init", **build)
    teacher = load_model("fresh:zoo:vit-xs", stream="teacher1/init", **build).eval()
    initial = copy.deepcopy(student).eval()
    student.train().to(memory_format=torch.channels_last)
    steps, total = 6, 12
    optimiser = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    views = Views(crop="shift", pad=2, seed=11)
    for epoch in range(2):
        order = torch.randperm(270, generator=generator(4, "data", epoch))
        for step in range(steps):
            now = epoch * steps + step
            warm, peak = 3, 3.2 * 40 / 256
            cosine = 0.5 * (
                1 + torch.tensor(torch.pi * (now - warm) / (total - warm), dtype=torch.float64).cos().item()
            )
            optimiser.param_groups[0]["lr"] = peak * ((now + 1) / warm if now < warm else cosine)
            optimiser.zero_grad()
            for rows in order[40 * step : 40 * (step + 1)].chunk(2):
                x = views(data.train.inputs.read(rows), data.train.index[rows], epoch)
                y = data.train.labels[rows]
                with torch.no_grad():
                    z_t, z_st = teacher(x).logits, initial(x).logits
                m = F.softmax(z_t, 1)[range(20), y] > F.softmax(z_st, 1)[range(20), y]
                z = torch.where(m[:, None], z_t, z_st)
                loss = F.kl_div(F.log_softmax(student(x).logits, 1), F.softmax(z, 1), reduction="batchmean")
                (loss / 2).backward()
            nn.utils.clip_grad_norm_(student.parameters(), 0.5)
            optimiser.step()
    assert len(data.train) == 270
    for name, value in student.state_dict().items():
        torch.testing.assert_close(result.student.state_dict()[name], value, rtol=1e-4, atol=1e-6, msg=name)
    moved = [not torch.equal(a, b) for a, b in zip(student.parameters(), initial.parameters(), strict=True)]
    assert all(moved)

    test = data.test()
    before, after, taught = (predict(net, test).argmax(-1) == test.labels for net in (initial, result.student, teacher))
    numbers = result.numbers
    assert numbers["accuracy_before"] == accuracy(before)
    assert numbers["accuracy_after"] == accuracy(after)
    assert numbers["teacher_accuracy"] == accuracy(taught)
    assert numbers["knowledge_gain"] == positive_flips(before, after)
    assert numbers["positive_flips_after"] == positive_flips(after, taught)
    assert numbers["negative_flips_before"] == negative_flips(before, taught)
    assert sum(numbers["share"].values()) == pytest.approx(1, abs=1e-6)


def test_result_json_holds_what_it_should(execute, tmp_path):
    result = execute(tmp_path / "run", method={"target": "partition"})
    numbers = json.loads((tmp_path / "run" / "result.json").read_text())
    assert numbers == result.numbers
    assert numbers.keys() >= {
        "accuracy_before", "accuracy_after", "teacher_accuracy", "transfer_delta", "knowledge_gain", "knowledge_loss",
        "positive_flips_before", "positive_flips_after", "negative_flips_before", "negative_flips_after", "mcnemar_p",
        "share", "cost", "seconds", "seed", "environment", "heldout", "chosen", "samples",
    }  # fmt: skip
    assert numbers["samples"] == 80
    assert numbers["heldout"]["samples"] == 30
    assert numbers["chosen"]["epoch"] in (1, 2)
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "recipe.yaml", "metrics.jsonl", "result.json", "checkpoints", "frozen", "student.safetensors",
        "student-chosen.safetensors", "answers.safetensors", "flipped.safetensors", "report.html", "lock",
    }  # fmt: skip
    assert not list((tmp_path / "run").rglob("*.part"))


def test_the_chosen_epoch_is_the_best_on_the_heldout_part(execute, metrics, tmp_path):
    result = execute(tmp_path / "run", epochs=6)
    scores = [line["heldout_accuracy"] for line in metrics(tmp_path / "run") if "heldout_accuracy" in line]
    assert len(scores) == 6
    assert len(set(scores)) > 1
    chosen = result.numbers["chosen"]
    assert chosen["epoch"] == scores.index(max(scores)) + 1
    assert chosen["heldout"]["accuracy_after"] == max(scores)
    assert result.numbers["heldout"]["accuracy_after"] == scores[-1]


class SlowWeights(Supervised):
    """Hands back the mean of its student's weights over all steps."""

    def __init__(self, student, frozen, *, optimiser: Optimiser = Optimiser(lr=0.5)):
        super().__init__(student, frozen, optimiser=optimiser)
        self.slow = copy.deepcopy(student).requires_grad_(False)
        self.seen = []

    @torch.no_grad()
    def after_step(self, clock):
        self.seen.append([parameter.detach().clone() for parameter in self.student.parameters()])
        for slow, fast in zip(self.slow.parameters(), self.student.parameters(), strict=True):
            slow.lerp_(fast, 1 / (clock.step + 1))

    def products(self):
        return {"student": self.slow}


def test_a_run_hands_back_the_product_of_its_method(execute, monkeypatch, metrics, tmp_path, grey):
    monkeypatch.setitem(METHODS, "slow-weights", SlowWeights)
    made = []
    monkeypatch.setattr(SlowWeights, "players", lambda self: made.append(self) or Supervised.players(self))
    result = execute(tmp_path / "run", method={"name": "slow-weights", "optimiser": {"lr": 0.5}})
    means = [torch.stack(steps).double().mean(0) for steps in zip(*made[0].seen, strict=True)]
    saved = load_model(f"file:{tmp_path / 'run' / 'student.safetensors'}")
    for network in (result.student, saved):
        for parameter, mean in zip(network.parameters(), means, strict=True):
            torch.testing.assert_close(parameter.double(), mean, rtol=0, atol=1e-6)
    heldout = load_data(grey).heldout
    accuracy = 100 * (predict(saved, heldout).argmax(-1) == heldout.labels).double().mean().item()
    (*_, last) = (line for line in metrics(tmp_path / "run") if "heldout_accuracy" in line)
    assert last["heldout_accuracy"] == pytest.approx(accuracy)
    assert result.numbers["heldout"]["accuracy_after"] == pytest.approx(accuracy)


def test_the_test_part_is_read_once_and_only_after_the_last_step(execute, monkeypatch, after_step, tmp_path):
    events = []

    def watched(*args, **settings):
        data = load_data(*args, **settings)
        return replace(data, test=lambda: events.append("test read") or data.test())

    monkeypatch.setattr(images, "load_data", watched)
    after_step(12, lambda: events.append("last step"))
    execute(tmp_path / "run", method={"target": "partition", "optimiser": {"schedule": "plateau"}})
    assert events == ["last step", "test read"]


@pytest.mark.parametrize("networks", [DROPOUT, BATCH_NORM, ADAM, HARD], ids=["dropout", "batch-norm", "adamw", "hard"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_in_the_middle_of_an_epoch_and_resumed(
    execute, left, undisturbed, after_step, tmp_path, networks, number
):
    after_step(9, lambda: os.kill(os.getpid(), number))
    with pytest.raises(Interrupted, match="interrupted at step 9; the same command goes on") as stopped:
        execute(tmp_path / "run", **networks)
    assert stopped.value.signal == number
    assert max((tmp_path / "run" / "checkpoints").iterdir()).name == "step-000000009.ckpt"
    assert not (tmp_path / "run" / "result.json").exists()
    execute(tmp_path / "run", **networks)
    assert left(tmp_path / "run") == undisturbed(**networks)


@pytest.mark.parametrize("networks", [DROPOUT, BATCH_NORM, HARD], ids=["dropout", "batch-norm", "hard"])
@pytest.mark.parametrize("step", [1, 5, 6, 7, 12])
def test_a_crash_anywhere_leaves_no_trace_in_the_end(execute, left, undisturbed, after_step, tmp_path, networks, step):
    changes = {"checkpoint_every": 2, "log_every": 1, **networks}
    after_step(step, crash)
    with pytest.raises(Crash):
        execute(tmp_path / "run", **changes)
    execute(tmp_path / "run", **changes)
    assert left(tmp_path / "run") == undisturbed(**changes)


def test_what_a_killed_process_was_writing_is_gone(execute, after_step, tmp_path):
    after_step(7, crash)
    with pytest.raises(Crash):
        execute(tmp_path / "run")
    halves = [
        tmp_path / "run" / name
        for name in ("recipe.yaml.123.part", "checkpoints/step-6.ckpt.9.part", "frozen/x.77.part")
    ]
    kept = tmp_path / "run" / "my.part"
    for half in (*halves, kept):
        half.write_bytes(b"half")
    halves.append(tmp_path / "run" / "student.55.part")
    halves[-1].mkdir()
    execute(tmp_path / "run")
    assert not any(half.exists() for half in halves)
    assert kept.exists()


def test_asked_to_stop_at_the_very_last_step(execute, left, undisturbed, after_step, tmp_path):
    after_step(12, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match="step 12"):
        execute(tmp_path / "run")
    execute(tmp_path / "run")
    assert left(tmp_path / "run") == undisturbed()


def test_a_crash_before_the_first_checkpoint_leaves_no_line_twice(execute, left, undisturbed, after_step, tmp_path):
    after_step(5, crash)
    with pytest.raises(Crash):
        execute(tmp_path / "run", log_every=1)
    assert (tmp_path / "run" / "metrics.jsonl").read_text()
    execute(tmp_path / "run", log_every=1)
    assert left(tmp_path / "run") == undisturbed(log_every=1)


def test_how_often_checkpoints_are_written_changes_nothing(undisturbed):
    assert undisturbed(checkpoint_every=1, **BATCH_NORM) == undisturbed(**BATCH_NORM)


def test_a_damaged_newest_checkpoint(execute, left, undisturbed, after_step, tmp_path, capsys):
    """The newest checkpoint is truncated after a crash: the one before is used, it says so, and the end is the same."""
    changes = {"checkpoint_every": 2, "log_every": 1, **BATCH_NORM}
    after_step(9, crash)
    with pytest.raises(Crash):
        execute(tmp_path / "run", **changes)
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    assert newest.name == "step-000000008.ckpt"
    os.truncate(newest, newest.stat().st_size // 2)
    capsys.readouterr()
    execution.execute(resolve(yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())), tmp_path / "run")
    said = capsys.readouterr().err
    assert "checkpoint step-000000008.ckpt is damaged (truncated or altered): using the one before" in said
    assert "resumed at step 6 of 12" in said
    assert left(tmp_path / "run") == undisturbed(**changes)


def test_a_crash_while_the_result_is_measured(execute, left, undisturbed, monkeypatch, tmp_path):
    measure = images.measure
    monkeypatch.setattr(images, "measure", lambda *_: crash())
    with pytest.raises(Crash):
        execute(tmp_path / "run")
    monkeypatch.setattr(images, "measure", measure)
    execute(tmp_path / "run")
    assert left(tmp_path / "run") == undisturbed()


def test_a_checkpoint_of_another_method_is_one_line_and_nothing_is_lost(execute, after_step, tmp_path):
    after_step(9, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        execute(tmp_path / "run")
    (newest,) = (tmp_path / "run" / "checkpoints").glob("step-000000009.ckpt")
    state = checkpoint.load(newest)
    state["method"]["earlier"] = torch.zeros(1)
    checkpoint.save(newest.parent, 9, state)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"step-000000009.ckpt does not fit this method, .* start anew with --fresh$"):
        execute(tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_a_plateau_that_ended_the_run_stays_ended_after_a_crash(execute, left, monkeypatch, metrics, tmp_path):
    changes = {
        "epochs": 30,
        "method": {"optimiser": {"lr": 0.5, "schedule": "plateau", "plateau": {"patience": 1, "reductions": 2}}},
    }
    execute(tmp_path / "whole", **changes)
    assert metrics(tmp_path / "whole")[-1]["epoch"] < 30
    measure = images.measure
    monkeypatch.setattr(images, "measure", lambda *_: crash())
    with pytest.raises(Crash):
        execute(tmp_path / "run", **changes)
    monkeypatch.setattr(images, "measure", measure)
    execute(tmp_path / "run", **changes)
    assert left(tmp_path / "run") == left(tmp_path / "whole")


def test_a_finished_run_is_handed_back_without_training(execute, monkeypatch, tmp_path):
    first = execute(tmp_path / "run")
    monkeypatch.setattr(Engine, "fit", lambda _: pytest.fail("trained again"))
    again = execute(tmp_path / "run")
    assert again.numbers == first.numbers
    assert again.student.digest() == first.student.digest()
    assert not again.student.training


def test_fresh_runs_it_again(execute, tmp_path):
    first = execute(tmp_path / "run")
    (tmp_path / "run" / "result.json").write_text('{"mark": 1}')
    assert execute(tmp_path / "run").numbers == {"mark": 1}
    assert execute(tmp_path / "run", fresh=True).numbers["accuracy_after"] == first.numbers["accuracy_after"]


@pytest.mark.parametrize("method", ["momentum", {"name": "supervised", "train": "head"}])
def test_a_result_trains_whole_in_the_next_run(plain, tmp_path, method):
    """Whatever the method before trained of it."""
    first = api.transfer(output=tmp_path / "first", **{**plain(), "method": method})
    assert all(parameter.requires_grad for parameter in first.student.parameters())
    second = api.transfer(output=tmp_path / "second", **{**plain(), "student": first.student})
    for one, two in zip(first.student.parameters(), second.student.parameters(), strict=True):
        assert not torch.equal(one, two)


@pytest.mark.parametrize(
    "name", ["photo.png", "model.safetensors", "student.safetensors", "metrics.jsonl", "result.json"]
)
@pytest.mark.parametrize("fresh", [False, True])
def test_files_that_no_run_made_are_left_alone(execute, tmp_path, name, fresh):
    (tmp_path / name).write_text("mine")
    with pytest.raises(
        UserError, match=f"holds '{name}', which no run made and this one might write over: give another"
    ):
        execute(tmp_path, fresh=fresh)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}


def test_fresh_with_a_mistake_loses_nothing(execute, left, tmp_path):
    execute(tmp_path / "run")
    before = left(tmp_path / "run")
    for mistake in ({"teacher": "zoo:nothing"}, {"teacher": None}, {"batch_size": 41, "accumulate": 2}):
        with pytest.raises(UserError):
            execute(tmp_path / "run", fresh=True, **mistake)
    assert left(tmp_path / "run") == before
    assert (tmp_path / "run" / "result.json").exists()


def test_another_recipe_in_the_same_folder(execute, tmp_path):
    execute(tmp_path / "run")
    with pytest.raises(
        UserError, match=r"holds a run of another recipe \(epochs: 2 there, 3 now\): give another --output"
    ):
        execute(tmp_path / "run", epochs=3)


def test_a_folder_of_an_earlier_version_goes_on(execute, left, tmp_path):
    execute(tmp_path / "run")
    path = tmp_path / "run" / "recipe.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in yaml.safe_load(path.read_text()).items() if k != "blend"}))
    before = left(tmp_path / "run")
    execute(tmp_path / "run")
    assert left(tmp_path / "run") == before


def test_accuracy_on_corrupted_images(execute, tmp_path):
    numbers = execute(tmp_path / "run", corruptions=["translate:2", "impulse_noise:1"]).numbers
    found = numbers["corrupted"]
    assert set(found) == {"before", "after", "chosen", "teacher1", "by_corruption"}
    assert set(found["by_corruption"]) == {"translate:2", "impulse_noise:1"}
    for role in ("before", "after", "chosen", "teacher1"):
        parts = [one[role] for one in found["by_corruption"].values()]
        assert found[role] == pytest.approx(sum(parts) / 2)
    saved = api.robustness([str(f"file:{tmp_path / 'run'}")], data=numbers["data"], corruptions=["translate:2"])
    assert saved["summary"][0]["translate"] == found["by_corruption"]["translate:2"]["after"]
    assert saved["summary"][0]["clean"] == numbers["accuracy_after"]


@pytest.mark.parametrize("name", ["foog", "fog:9"])
def test_an_unknown_corruption_is_found_before_the_first_step(execute, tmp_path, name):
    with pytest.raises(UserError, match="corruption"):
        execute(tmp_path / "run", corruptions=[name])
    assert not (tmp_path / "run").exists()


def test_a_mistake_leaves_no_folder(execute, tmp_path):
    with pytest.raises(UserError):
        execute(tmp_path / "run", teacher="zoo:nothing")
    assert not (tmp_path / "run").exists()


def saved(path, name, seed):
    load_model(f"fresh:zoo:{name}", num_classes=4, channels=1, image_size=(12, 12), seed=seed).save(path)
    return f"file:{path}"


def test_a_frozen_teacher_that_changed_since_is_an_error(execute, after_step, monkeypatch, tmp_path):
    monkeypatch.setattr("osmose.pair_check._check_order", lambda *_: None)  # the teachers are not trained
    teacher = saved(tmp_path / "teacher.safetensors", "cnn-xs", 1)
    after_step(9, crash)
    with pytest.raises(Crash):
        execute(tmp_path / "run", teacher=teacher)
    original = (tmp_path / "teacher.safetensors").read_bytes()
    saved(tmp_path / "teacher.safetensors", "cnn-xs", 2)
    message = r"^the weights of 'teacher1' are not the ones this run started with: bring them back, or .* --fresh$"
    with pytest.raises(UserError, match=message):
        execute(tmp_path / "run", teacher=teacher)
    (tmp_path / "teacher.safetensors").write_bytes(original)
    execute(tmp_path / "run", teacher=teacher)


def test_a_student_file_that_changed_since_does_not_matter(execute, left, after_step, tmp_path):
    """The initial student is kept in the run's folder: the run may even write over the file it came from."""
    student = saved(tmp_path / "student.safetensors", "mlp-xs", 1)
    execute(tmp_path / "whole", student=student, method={"target": "partition"})
    after_step(9, crash)
    with pytest.raises(Crash):
        execute(tmp_path / "run", student=student, method={"target": "partition"})
    saved(tmp_path / "student.safetensors", "mlp-xs", 2)
    execute(tmp_path / "run", student=student, method={"target": "partition"})
    assert left(tmp_path / "run") == left(tmp_path / "whole")


def test_a_kept_network_of_another_folder_is_never_taken(tmp_path, plain, monkeypatch):
    """A dry run looks at no run's folder, not even at the one it is started in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frozen").mkdir()
    saved(tmp_path / "frozen" / "initial.safetensors", "vit-xs", 1)
    execution.estimate(resolve(plain()))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["frozen"]


def test_an_estimate_tells_steps_time_disk_and_memory(plain, execute, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    numbers = execution.estimate(resolve(plain(**BATCH_NORM)))
    assert numbers["steps"] == 12
    assert numbers["training_seconds"] >= 0
    assert numbers["memory_mib"] > 50
    assert not list(tmp_path.iterdir())
    execute(tmp_path / "run", **BATCH_NORM)
    used = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert numbers["disk_mib"] == pytest.approx(used / 2**20, rel=0.3, abs=0.1)


def test_what_was_adapted_or_does_nothing_is_said(plain, tmp_path, capsys):
    recipe = plain(student="fresh:zoo:mlp-xs", view={"grayscale": 0.0}, epochs=1)
    execution.execute(resolve(recipe), tmp_path / "run")
    assert "note: view.colour: without effect on images of one channel\n" in capsys.readouterr().err
    execution.execute(resolve(plain(epochs=1, view={"colour": 0.0, "grayscale": 0.0})), tmp_path / "plain")
    assert "note" not in capsys.readouterr().err


def test_a_teacher_of_the_same_classes_in_another_order_is_reordered(execute, colour, tmp_path):
    """As if its head had been trained in the data's order; nothing but the note tells the two runs apart."""
    teacher = load_model("fresh:zoo:cnn-xs", classes=("ant", "bee", "cat"), channels=3, image_size=(16, 16))
    runs = []
    for classes in (("ant", "bee", "cat"), ("cat", "ant", "bee")):
        assert teacher.reorder(classes)
        teacher.save(tmp_path / "teacher.safetensors")
        settings = {"data": colour, "teacher": f"file:{tmp_path / 'teacher.safetensors'}", "epochs": 1, "batch_size": 8}
        runs.append(execute(tmp_path / classes[0], **settings))
    assert runs[0].student.digest() == runs[1].student.digest()
    assert runs[0].numbers["teacher_accuracy"] == runs[1].numbers["teacher_accuracy"]


def test_a_finished_run_hands_back_a_network_with_the_datas_order_of_classes(colour, tmp_path):
    student = load_model("fresh:zoo:cnn-xs", classes=("cat", "ant", "bee"), channels=3, image_size=(16, 16))
    settings = {"student": student, "data": colour, "method": "supervised", "epochs": 1, "batch_size": 8, "threads": 1}
    first, again = (api.transfer(output=tmp_path / "run", **settings) for _ in range(2))
    assert first.student.classes == again.student.classes == ("ant", "bee", "cat")
    for one in (first, again):
        assert api.evaluate(one.student, data=colour)["accuracy"] == first.numbers["accuracy_after"]


@pytest.mark.parametrize("epochs", [1, 2])
def test_head_warmup_moves_only_the_head(execute, tmp_path, epochs):
    result = execute(tmp_path / "run", student="fresh:zoo:vit-xs", epochs=epochs, method={"head_warmup_epochs": 1})
    build = {"num_classes": 4, "channels": 1, "image_size": (12, 12), "stream": "student/init"}
    initial = load_model("fresh:zoo:vit-xs", **build)
    moved = {
        name for name, value in initial.body.named_parameters() if not torch.equal(value, result.student.body.get_parameter(name))
    }  # fmt: skip
    assert moved == (
        {"head.weight", "head.bias"} if epochs == 1 else {name for name, _ in initial.body.named_parameters()}
    )


def test_weights_of_a_fresh_student_depend_on_seed_and_stream_alone(plain, tmp_path):
    def student(**changes):
        torch.rand(3)
        return execution.gather(resolve(plain(**changes)), {}, {}).student.digest()

    first = student()
    assert student(teacher="fresh:zoo:vit-s", epochs=9, method={"target": "partition"}) == first
    assert student(seed=1) != first
    same = execution.gather(resolve(plain(teacher="fresh:zoo:mlp-xs")), {}, {})
    assert same.teachers["teacher1"].digest() != same.student.digest()  # another stream
    assert seed_of(0, "student/init") != seed_of(0, "teacher1/init")


def test_a_network_with_nan_is_one_line(execute, tmp_path):
    network = load_model("fresh:zoo:cnn-xs", num_classes=4, channels=1, image_size=(12, 12))
    with torch.no_grad():
        network.head.bias[0] = float("nan")
    network.save(tmp_path / "teacher.safetensors")
    with pytest.raises(UserError, match=r"^'file:.*' holds NaN or infinity in 'head\.bias': its training diverged"):
        execute(tmp_path / "run", teacher=f"file:{tmp_path / 'teacher.safetensors'}")


@pytest.mark.parametrize("checkpoint_every", [1, None])
def test_a_learning_rate_that_explodes_is_one_line(execute, tmp_path, checkpoint_every):
    with pytest.raises(UserError, match=r"^the (loss|weights) (is|are) no longer finite at step \d+: lower "):
        execute(
            tmp_path / "run", checkpoint_every=checkpoint_every, epochs=4,
            method={"kl_weight": 0.5, "optimiser": {"lr": 1e30}},
        )  # fmt: skip
    for file in (tmp_path / "run" / "checkpoints").glob("*"):
        assert all(
            value.isfinite().all() for value in checkpoint.load(file)["method"].values() if value.is_floating_point()
        )


def test_a_disk_that_fills_up_is_one_line_and_the_run_goes_on_from_before(
    execute, left, undisturbed, monkeypatch, tmp_path
):
    fsync = os.fsync

    def full(fd):
        if "step-000000006" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        UserError, match=r"^cannot write .*step-000000006\.ckpt: No space left on device; free space there"
    ):
        execute(tmp_path / "run", checkpoint_every=2)
    assert [p.name for p in sorted((tmp_path / "run" / "checkpoints").iterdir())] == [
        "step-000000002.ckpt", "step-000000004.ckpt",
    ]  # fmt: skip
    monkeypatch.setattr(os, "fsync", fsync)
    execute(tmp_path / "run", checkpoint_every=2)
    assert left(tmp_path / "run") == undisturbed(checkpoint_every=2)


def test_a_place_that_cannot_be_written_is_one_line(execute, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^cannot write .*/file/run: Not a directory; choose another place"):
        execute(tmp_path / "file" / "run")


def test_plateau_without_heldout_samples_is_one_line(execute, tmp_path):
    with pytest.raises(
        UserError,
        match=r"^schedule plateau needs held-out samples with labels, idx:.* has none: set data\.heldout or",
    ):
        execute(tmp_path / "run", data={"heldout": 0.0}, method={"optimiser": {"schedule": "plateau"}})


def test_without_a_heldout_part_nothing_is_chosen(execute, tmp_path):
    numbers = execute(tmp_path / "run", data={"heldout": 0.0}).numbers
    assert numbers["heldout"] is None
    assert numbers["chosen"] is None
    assert not (tmp_path / "run" / "student-chosen.safetensors").exists()


def test_batch_normalisation_of_a_single_value_is_a_mistake_and_other_errors_are_not(execute, monkeypatch, tmp_path):
    single = {
        "student": "fresh:zoo:resnet-s", "teacher": None, "method": {"name": "dino", "outputs": 16}, "batch_size": 1,
        "view": {"globals": 1, "locals": 1},
    }  # fmt: skip
    with pytest.raises(
        UserError, match="a micro-batch is one sample whose map is one place: raise batch_size, or lower"
    ):
        execute(tmp_path / "one", **single)

    def broken(*_):
        raise ValueError("another")

    monkeypatch.setattr("osmose.engine.loop.Engine.fit", broken)
    with pytest.raises(ValueError, match="another"):
        execute(tmp_path / "other", **single)


def test_bf16_mixed_is_autocast_around_the_student_alone(execute, tmp_path, grey):
    """Against a loop by hand: the student in autocast, the teacher, the loss and all weights in float32."""
    result = execute(tmp_path / "run", precision="bf16-mixed", view={"flip": 0.0}, epochs=1, method=KL_ALONE)
    build = {"num_classes": 4, "channels": 1, "image_size": (12, 12)}
    student = load_model("fresh:zoo:mlp-xs", stream="student/init", **build).train()
    teacher = load_model("fresh:zoo:cnn-xs", stream="teacher1/init", **build).eval()
    optimiser = torch.optim.SGD(student.parameters(), lr=0.5 * 40 / 256, momentum=0.9, weight_decay=1e-3)
    for _, pixels, *_ in Loader(load_data(grey).train, batch_size=40, seed=0).epoch(0):
        x = pixels.float() / 255
        with torch.no_grad():
            taught = teacher(x).logits
        with torch.autocast("cpu", torch.bfloat16):
            said = student(x).logits
        assert (said.dtype, taught.dtype) == (torch.bfloat16, torch.float32)
        loss = F.kl_div(said.float().log_softmax(-1), taught.log_softmax(-1), reduction="batchmean", log_target=True)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for ours, theirs in zip(result.student.parameters(), student.parameters(), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_frozen_networks_have_a_precision_of_their_own(execute, tmp_path, grey):
    """Against a loop by hand: the teacher in autocast, the student, the loss and all weights in float32."""
    result = execute(
        tmp_path / "run",
        frozen_precision="bf16-mixed",
        view={"flip": 0.0},
        epochs=1,
        method={**KL_ALONE, "temperature": 4.0},
    )
    build = {"num_classes": 4, "channels": 1, "image_size": (12, 12)}
    student = load_model("fresh:zoo:mlp-xs", stream="student/init", **build).train()
    teacher = load_model("fresh:zoo:cnn-xs", stream="teacher1/init", **build).eval()
    teacher.to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(student.parameters(), lr=0.5 * 40 / 256, momentum=0.9, weight_decay=1e-3)
    for _, pixels, *_ in Loader(load_data(grey).train, batch_size=40, seed=0).epoch(0):
        x = pixels.float() / 255
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            taught = teacher(x).logits.float()
        log_said, log_taught = (logits.div(4.0).log_softmax(-1) for logits in (student(x).logits, taught))
        loss = 16 * F.kl_div(log_said, log_taught, reduction="batchmean", log_target=True)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for ours, theirs in zip(result.student.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_hard_goes_through_both_phases_and_saves_its_augmentor(execute, metrics, tmp_path):
    result = execute(tmp_path / "run", **HARD, epochs=4, log_every=1)
    lines = [line for line in metrics(tmp_path / "run") if "loss" in line]
    phases = ["kl" in line for line in lines]  # only the student's phase reports it
    assert {*phases} == {True, False}
    assert phases[0] is False
    augmentor = load_augmentor(tmp_path / "run" / "augmentor.safetensors")
    assert augmentor.mean.abs().max() > 0
    assert result.numbers["taught_by"] == "fresh:zoo:vit-xs on learned augmentations"
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert recipe["method"]["augmentor"] == {"name": "affine", "noise": 0.1}


def test_blends_train_and_resume_and_refuse_targets_that_ask_for_classes(execute, left, after_step, tmp_path):
    blended = {"blend": "mixup", "accumulate": 2, "method": {"kl_weight": 0.5, "optimiser": {"schedule": "cosine"}}}
    execute(tmp_path / "whole", **blended)
    execute(tmp_path / "plain", **{**blended, "blend": "none"})
    assert left(tmp_path / "whole") != left(tmp_path / "plain")
    after_step(9, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        execute(tmp_path / "run", **blended)
    execute(tmp_path / "run", **blended)
    assert left(tmp_path / "run") == left(tmp_path / "whole")
    with pytest.raises(
        UserError, match=r"^blend cutmix mixes labels and the method asks for each sample's class: use a target"
    ):
        execute(tmp_path / "refused", blend="cutmix", method={"target": "partition"})


def test_a_split_smaller_than_a_batch_trains_at_its_own_batchs_rate(execute, metrics, tmp_path, capsys):
    """The rule is lr x samples of a step / 256, so asking for more samples than there are changes nothing."""
    asked = execute(tmp_path / "asked", data={"fraction": 0.2}, batch_size=256, epochs=3)
    exact = execute(tmp_path / "exact", data={"fraction": 0.2}, batch_size=54, epochs=3)
    assert asked.student.digest() == exact.student.digest()
    assert metrics(tmp_path / "asked") == metrics(tmp_path / "exact")


def test_loader_processes_change_nothing(undisturbed):
    assert undisturbed(workers=2, **BATCH_NORM) == undisturbed(**BATCH_NORM)


def test_controls_are_one_setting_away(execute, tmp_path):
    alone = execute(tmp_path / "alone", teacher=None, method={"name": "supervised", "optimiser": {"lr": 0.5}})
    assert alone.numbers["teacher"] is None
    assert "teacher_accuracy" not in alone.numbers
    itself = execute(tmp_path / "self", teacher=None, method={"target": "initial"})
    assert itself.numbers["share"] == {"initial": 1.0}
    random = execute(tmp_path / "random", teacher="fresh:zoo:cnn-xs")
    assert random.numbers["share"] == {"initial": 0.0, "teacher1": 1.0}


def test_regression_end_to_end(tmp_path, plain):
    """The label is the image's mean brightness: the error falls, and is what anyone would compute."""
    pa, image = pytest.importorskip("pyarrow"), pytest.importorskip("PIL.Image")
    pq = pytest.importorskip("pyarrow.parquet")
    draw = torch.Generator().manual_seed(0)
    for part, count in (("train", 120), ("test", 40)):
        level = torch.rand(count, generator=draw)
        pixels = (level[:, None, None] * 200 + 50 * torch.rand(count, 12, 12, generator=draw)).byte().numpy()
        images = []
        for one in pixels:
            buffer = io.BytesIO()
            image.fromarray(one).save(buffer, "PNG")
            images.append(buffer.getvalue())
        table = pa.table({"image": images, "label": pa.array(level.tolist(), pa.float32())})
        pq.write_table(table, tmp_path / f"{part}-0.parquet")
    recipe = resolve(
        plain(
            teacher=None, data={"name": f"parquet:{tmp_path}"}, epochs=8,
            method={"name": "supervised", "optimiser": {"name": "adam", "lr": 0.02}},
        )
    )  # fmt: skip
    result = execution.execute(recipe, tmp_path / "run", quiet=True)
    test = load_data(f"parquet:{tmp_path}").test()
    errors = (predict(result.student, test)[:, 0] - test.labels).square()
    assert result.numbers["mse_after"] == pytest.approx(errors.mean().item(), rel=1e-5)
    assert result.numbers["mse_after"] < 0.5 * result.numbers["mse_before"]
    assert result.numbers["unit"] == "mean squared error"
    assert result.numbers["chosen"]["heldout"]["mse_after"] <= result.numbers["heldout"]["mse_after"]
