"""On a GPU: runs are close to a CPU's, and with `deterministic` the same to the last bit, stopped or not."""

import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from osmose import api
from osmose.engine.interrupt import Interrupted
from osmose.errors import UserError

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

PAIR = {"student": "fresh:zoo:cnn-s", "teacher": "fresh:zoo:vit-xs"}
HEADS = {"outputs": 16, "mlp_head": {"hidden": 12, "bottleneck": 6}, "cnn_optimiser": {"lr": 0.01, "warmup_epochs": 0}}
CROPS = {
    "teacher": None, "student": ["fresh:zoo:cnn-s", "fresh:zoo:resnet-s"], "view": {"locals": 2, "local_size": 8},
    "method": {"name": "mokd", "t_head": {"layers": 1, "heads": 2, "width": 8}, "t_head_optimiser": {"lr": 0.1}, **HEADS},
}  # fmt: skip
HARD = {
    "name": "hard", "target": "partition", "l_min": 0.74, "l_max": 0.75, "consecutive": 1, "augmentor_batch": 20,
    "optimiser": {"lr": 0.1, "schedule": "constant"},
}  # fmt: skip
RATINGS = {
    "teacher": "fresh:ratings:two-tower,width=4,hidden=8", "student": "fresh:ratings:two-tower,width=4,hidden=4",
    "method": {"name": "interactive", "optimiser": {"lr": 0.01}},
}  # fmt: skip
OPTIMISER = {"lr": 0.01}
RUNS = {
    "partition": {**PAIR, "method": {"name": "distill", "target": "partition", "optimiser": OPTIMISER}},
    "momentum": {**PAIR, "method": {"name": "momentum", "optimiser": OPTIMISER}},
    "contrastive": {**PAIR, "method": {"name": "contrastive", "optimiser": OPTIMISER}},
    "interactive": {**PAIR, "method": {"name": "interactive", "rounds": 2, "optimiser": OPTIMISER}},
    "hard-gaussian": {**PAIR, "method": {**HARD, "augmentor": "gaussian"}},
    "mokd": CROPS,
    "ratings": RATINGS,
}


@pytest.fixture
def train(grey, ratings, tmp_path):
    """Runs two short epochs in a folder."""

    def go(name, settings, **changes):
        data = ratings if settings is RATINGS else grey
        short = {"data": data, "epochs": 2, "batch_size": 40, "threads": 1, "log_every": 1, "accelerator": "cuda"}
        recipe = {key: value for key, value in {**short, **settings, **changes}.items() if value is not None}
        return api.run(recipe, output=tmp_path / name)

    return go


def tensors(folder):
    return {
        f"{file.name}/{name}": value.numpy().tobytes()
        for file in sorted(folder.glob("student*.safetensors"))
        for name, value in load_file(file).items()
    }


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", RUNS)
def test_a_stopped_run_goes_on_to_the_last_bit(train, metrics, after_step, tmp_path, name, precision):
    changes = {"deterministic": True, "precision": precision}
    train("whole", RUNS[name], **changes)
    after_step(7, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        train("run", RUNS[name], **changes)
    train("run", RUNS[name], **changes)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    assert tensors(tmp_path / "run") == tensors(tmp_path / "whole") != {}


@pytest.mark.parametrize("name", sorted(RUNS.keys() - {"hard-gaussian"}))
def test_the_losses_of_an_epoch_are_close_to_a_cpus(train, metrics, tmp_path, monkeypatch, name):
    """Nothing random here comes from the device: views, order, messages' weights and teachers' answers are the same."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    for device in ("cpu", "cuda"):
        train(device, RUNS[name], accelerator=device, epochs=1)
    ours, theirs = (
        [line["loss"] for line in metrics(tmp_path / device) if "loss" in line] for device in ("cuda", "cpu")
    )
    assert ours == pytest.approx(theirs, rel=2e-3)
    assert ours[:1] == pytest.approx(theirs[:1], rel=2e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("augmentor", ["affine", "generator", "mix"])
def test_learned_augmentations_train(train, tmp_path, augmentor, precision):
    target = "teacher" if augmentor == "mix" else "partition"
    method = {**HARD, "augmentor": augmentor, "target": target}
    result = train("run", {**PAIR, "method": method}, precision=precision)
    assert 0 < result.numbers["accuracy_after"] <= 100
    assert (tmp_path / "run" / "report.html").exists()


def test_what_has_no_deterministic_form_is_told_in_one_line(train):
    with pytest.raises(UserError, match=r"has no form that gives the same bits each time.*set deterministic to false"):
        train("run", {**PAIR, "method": {**HARD, "augmentor": "affine"}}, deterministic=True)


def test_a_language_model_learns(speak, tmp_path):
    for precision in ("32-true", "bf16-mixed"):
        result = speak(tmp_path / precision, precision=precision, frozen_precision=precision, accelerator="cuda")
        assert result.numbers["perplexity_after"] < result.numbers["perplexity_before"]
