"""Training a generator: the bound against a plain re-derivation, a run from the recipe, and what it leaves."""

import json

import pytest
import torch
from torch import nn

from osmose import api
from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.errors import UserError
from osmose.methods.autoencode import Autoencode
from osmose.models.load_generator import load_generator

CLOCK = Clock(step=0, steps_per_epoch=1, epochs=1, batch_size=4, seed=0)


def test_the_loss_is_the_bound():
    vae = load_generator("fresh:vae", channels=1, image_size=(8, 8)).double()
    method = Autoencode(vae, {}, beta=0.3)
    x = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    torch.manual_seed(0)
    loss, parts = method(Batch(index=torch.arange(4), view=0, x=x, y=None), CLOCK)
    torch.manual_seed(0)
    mean, log_variance = vae.body.encoder(x).chunk(2, dim=1)
    deviation = (0.5 * log_variance).exp()
    drawn = vae.body.decoder(mean + deviation * torch.randn_like(mean))
    likelihood = (x * drawn.log() + (1 - x) * (1 - drawn).log()).sum((1, 2, 3))
    divergence = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, deviation), torch.distributions.Normal(0, 1)
    )
    expected = (-likelihood + 0.3 * divergence.sum((1, 2, 3))).mean() / 64
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert set(parts) == {"reconstruction", "divergence"}


def test_other_generators_are_refused():
    with pytest.raises(UserError, match="trains a vae"):
        Autoencode(load_generator(nn.Conv2d(1, 1, 1), channels=1, image_size=(8, 8)), {})


def test_a_run_leaves_a_generator_that_hard_can_use(grey, tmp_path):
    common = {"data": grey, "epochs": 2, "batch_size": 20, "view": {"flip": 0.0}}
    recipe = {
        **common,
        "student": "fresh:vae",
        "method": {"name": "autoencode", "optimiser": {"name": "adam", "lr": 0.02}},
    }
    result = api.run(recipe, output=tmp_path / "vae")
    assert result.numbers["unit"] == "mean squared error"
    assert result.numbers["mse_after"] < result.numbers["mse_before"]
    assert (tmp_path / "vae" / "reconstructed.png").exists()
    epochs = [json.loads(line) for line in (tmp_path / "vae" / "metrics.jsonl").read_text().splitlines()]
    assert all(line["heldout_mse"] == -line["heldout_score"] for line in epochs if "heldout_mse" in line)
    again = api.run(recipe, output=tmp_path / "vae")
    assert again.student.digest() == result.student.digest()
    hard = {
        **common, "epochs": 1, "student": "fresh:zoo:mlp-xs", "teacher": "fresh:zoo:cnn-xs",
        "method": {"name": "hard", "augmentor": {"name": "generator", "model": f"file:{tmp_path / 'vae'}"},
                   "optimiser": {"name": "adam", "lr": 0.001}},
    }  # fmt: skip
    assert api.run(hard, output=tmp_path / "hard").numbers["method"] == "hard"


def test_a_generator_given_as_a_module_is_handed_back(grey, tmp_path):
    network = load_generator("fresh:vae", channels=1, image_size=(12, 12))
    settings = {"student": network.body, "data": grey, "method": "autoencode", "epochs": 1, "batch_size": 20}
    first, again = (api.transfer(output=tmp_path / "run", **settings) for _ in range(2))
    for one, two in zip(first.student.parameters(), again.student.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_module_generates_through_the_api(grey, tmp_path):
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x, noise):
            return x * self.scale + noise * torch.randn_like(x)

    settings = {
        "data": grey, "student": "fresh:zoo:mlp-xs", "teacher": "fresh:zoo:cnn-xs", "epochs": 1, "batch_size": 20,
        "method": {"name": "hard", "augmentor": [{"name": "generator", "model": Scale()}, "affine"],
                   "optimiser": {"name": "adam", "lr": 0.001}},
    }  # fmt: skip
    first = api.transfer(**settings, output=tmp_path / "run")
    assert "module:Scale-" in (tmp_path / "run" / "recipe.yaml").read_text()
    assert api.transfer(**settings, output=tmp_path / "run").student.digest() == first.student.digest()
