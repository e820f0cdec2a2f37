"""Generators: the autoencoder's pieces against plain arithmetic, names and files, and mistakes."""

import pytest
import torch
from torch import nn

from osmose.data import Views, load_data
from osmose.errors import UserError
from osmose.models import load_model
from osmose.models.generator import Generator
from osmose.models.load_generator import load_generator
from osmose.models.vae import Latent, ResidualVAE


def fresh(**changes):
    return load_generator("fresh:vae", **{"channels": 1, "image_size": (28, 28), **changes}).eval()


def test_the_divergence_is_that_of_normal_distributions():
    torch.manual_seed(0)
    mean, log_variance = torch.randn(3, 2, 2, 2, dtype=torch.float64), torch.randn(3, 2, 2, 2, dtype=torch.float64)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum((1, 2, 3))
    torch.testing.assert_close(Latent(mean, log_variance).divergence(), expected)


@pytest.mark.parametrize("size", [(28, 28), (32, 40)])
def test_an_autoencoder_keeps_the_shape_and_quarters_the_sides_inside(size):
    vae = ResidualVAE(channels=3, latent=5)
    x = torch.rand(2, 3, *size)
    assert vae.encode(x).mean.shape == (2, 5, size[0] // 4, size[1] // 4)
    drawn = vae(x, torch.tensor(1.0))
    assert drawn.shape == x.shape
    assert 0 <= drawn.min() <= drawn.max() <= 1


def test_noise_scales_the_latent():
    generator, x = fresh(), torch.rand(4, 1, 28, 28)
    assert torch.equal(generator(x), generator(x))
    torch.manual_seed(0)
    drawn = generator(x, 0.3)
    torch.manual_seed(0)
    mean = generator.body.encode(x).mean
    torch.testing.assert_close(drawn, generator.body.decode(mean + 0.3 * torch.randn_like(mean)))
    assert not torch.equal(drawn, generator(x))


def test_images_of_other_sizes_are_brought_to_its_own_and_back():
    generator = load_generator("fresh:vae", channels=1, image_size=(30, 30))
    assert generator.preprocessing.size == (32, 32)
    assert generator(torch.rand(2, 1, 30, 30)).shape == (2, 1, 30, 30)


def test_new_weights_are_those_of_the_seed():
    assert fresh(seed=1).digest() == fresh(seed=1).digest() != fresh(seed=2).digest()


def test_a_saved_generator_comes_back(tmp_path):
    generator = fresh()
    generator.save(tmp_path / "student.safetensors", epoch=3)
    for place in (tmp_path, tmp_path / "student.safetensors"):
        again = load_generator(f"file:{place}", channels=1, image_size=(28, 28))
        assert again.digest() == generator.digest()
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(again.eval()(x), generator(x))


def test_its_answer_is_the_error_of_each_image():
    generator, x = fresh(), torch.rand(3, 1, 28, 28)
    expected = ((generator(x) - x) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(generator.answer(x), expected[:, None])


def test_modules_and_generators_are_taken_as_they_are():
    class Body(nn.Module):
        def forward(self, x, noise):
            return x * (1 - noise)

    generator = load_generator(Body(), channels=2, image_size=(4, 4))
    assert torch.equal(generator(torch.ones(1, 2, 4, 4), 0.25), torch.full((1, 2, 4, 4), 0.75))
    assert load_generator(generator, channels=2, image_size=(4, 4)) is generator


def test_mistakes(tmp_path):
    def error(name, **changes):
        with pytest.raises(UserError) as caught:
            load_generator(name, **{"channels": 1, "image_size": (28, 28), **changes})
        return str(caught.value)

    assert error("veal").startswith("unknown generator 'veal': did you mean 'vae'?")
    assert error("fresh:van").startswith("unknown generator 'fresh:van': did you mean 'fresh:vae'?")
    assert "there is no file" in error(f"file:{tmp_path / 'none'}")
    fresh().save(tmp_path / "a.safetensors")
    assert error(f"file:{tmp_path / 'a.safetensors'}", channels=3) == (
        f"generator 'file:{tmp_path / 'a.safetensors'}' draws images of 1 channels, these have 3: train one on them, "
        "osmose run vae --data DATA, and give file:FOLDER"
    )
    load_model("fresh:zoo:mlp-xs", num_classes=10).save(tmp_path / "b.safetensors")
    assert "holds no generator" in error(f"file:{tmp_path / 'b.safetensors'}")
    spoilt = fresh()
    with torch.no_grad():
        spoilt.body.decoder[0].weight[0] = float("nan")
    spoilt.save(tmp_path / "c.safetensors")
    assert "holds NaN or infinity" in error(f"file:{tmp_path / 'c.safetensors'}")
    with pytest.raises(UserError, match="takes images of 1 channels, these have 3"):
        fresh()(torch.rand(1, 3, 28, 28))
    assert isinstance(spoilt, Generator)


def test_the_packaged_generator_draws_what_it_was_trained_on():
    """Held-out pictures, which it has not seen, to within a tenth of their variance; more noise changes them more."""
    data = load_data("fashion-mnist-mini")
    x = Views.plain(data.heldout.inputs.read(torch.arange(0, 6000, 30)))
    generator = load_generator("vae", channels=1, image_size=(28, 28)).eval()
    with torch.no_grad():
        error = generator.answer(x).mean().item()
        assert error < x.var().item() / 10
        moved = [(generator(x, noise) - generator(x)).square().mean().item() for noise in (0.1, 1.0)]
    assert 0 < moved[0] < moved[1] < x.var().item()
