"""Learned augmentations against plain arithmetic: where they start, what they do, and that gradients reach what trains."""

import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from osmose.augmentors import AUGMENTORS, Affine, Chain, Gaussian, Generative, Mix, load_augmentor, make_augmentor
from osmose.errors import UserError
from osmose.models.load_generator import load_generator

X = torch.rand(12, 2, 8, 8, generator=torch.Generator().manual_seed(0))


GENERATOR = {"name": "generator", "model": "fresh:vae"}
SECTIONS = [*(name for name in AUGMENTORS if name != "generator"), GENERATOR]


def silent(augmentor):
    """Without its noise."""
    with torch.no_grad():
        for name, parameter in augmentor.named_parameters():
            if name.endswith(("log_deviation", "log_noise")):
                parameter.fill_(-math.inf)
    return augmentor


def built(section):
    augmentor = make_augmentor(section)
    augmentor.fit(tuple(X.shape[1:]))
    return augmentor


@pytest.mark.parametrize(
    "section", ["gaussian", "affine", GENERATOR, ["affine", "gaussian", "affine"], [GENERATOR, "affine"]], ids=str
)
def test_starts_at_the_identity_but_for_its_noise(section):
    augmentor = built(section)
    assert (silent(augmentor)(X) - X).abs().max() < 1e-5
    assert not torch.equal(built(section)(X), X)


@pytest.mark.parametrize("section", [*SECTIONS, ["affine", "gaussian"], [GENERATOR, "affine"]], ids=str)
def test_the_same_draws_give_the_same_output_and_every_parameter_gets_a_gradient(section):
    augmentor = built(section)
    outputs = []
    for _ in range(2):
        torch.manual_seed(3)
        outputs.append(augmentor(X))
    assert torch.equal(*outputs)
    assert not torch.equal(augmentor(X), outputs[0])
    x = X.clone().requires_grad_()
    augmentor(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    for name, parameter in augmentor.learned().items():
        assert parameter.grad is not None, name
        # the key's bias shifts the similarities of all images of a group alike; a residual block begins as the identity
        if name != "key.bias" and ".first." not in name:
            assert parameter.grad.abs().max() > 0, name


def test_gaussian_has_the_learned_moments():
    augmentor = Gaussian(noise=0.5)
    with torch.no_grad():
        augmentor.mean.fill_(2.0)
    torch.manual_seed(0)
    added = augmentor(torch.zeros(100_000))
    assert added.mean().item() == pytest.approx(2.0, abs=4 * 0.5 / math.sqrt(100_000))
    assert added.std().item() == pytest.approx(0.5, rel=0.01)


def test_gaussian_gradients_are_the_reparametrised_ones():
    """d/dmu of sum (x + mu + sigma eps)^2 is 2 sum x~, d/dlog sigma is 2 sum x~ sigma eps."""
    augmentor = Gaussian(noise=0.3).double()
    x = X.double()
    torch.manual_seed(1)
    eps = torch.randn_like(x)
    torch.manual_seed(1)
    augmentor(x).square().sum().backward()
    moved = x + 0.3 * eps
    torch.testing.assert_close(augmentor.mean.grad, 2 * moved.sum())
    torch.testing.assert_close(augmentor.log_deviation.grad, 2 * (moved * 0.3 * eps).sum(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("right", "down"), [(0, 0), (2, 0), (0, -3), (-1, 1)])
def test_affine_moves_by_whole_pixels(right, down):
    augmentor = silent(Affine())
    with torch.no_grad():
        augmentor.mean[:, 2] = torch.tensor([-2 * right / 8, -2 * down / 8])
    padded = F.pad(X, (8, 8, 8, 8))
    expected = padded[..., 8 - down : 16 - down, 8 - right : 16 - right]
    torch.testing.assert_close(augmentor(X), expected, rtol=0, atol=1e-5)


def test_affine_turns_and_mirrors():
    augmentor = silent(Affine())
    with torch.no_grad():
        augmentor.mean.copy_(
            torch.tensor([[-1.0, 1.0, 0.0], [-1.0, -1.0, 0.0]])
        )  # identity + this is [[0, 1], [-1, 0]]
    torch.testing.assert_close(augmentor(X), X.rot90(-1, (2, 3)), rtol=0, atol=1e-5)
    with torch.no_grad():
        augmentor.mean.copy_(torch.tensor([[-2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(augmentor(X), X.flip(-1), rtol=0, atol=1e-5)


def test_affine_draws_a_matrix_for_each_image():
    augmentor = Affine(noise=0.1)
    torch.manual_seed(0)
    drawn = augmentor.matrices(20_000)
    torch.testing.assert_close(drawn.mean(0), torch.eye(2, 3), rtol=0, atol=4 * 0.1 / math.sqrt(20_000))
    torch.testing.assert_close(drawn.std(0), torch.full((2, 3), 0.1), rtol=0.03, atol=0)


def test_affine_gradients_in_float64():
    augmentor = Affine(noise=0.05).double()
    augmentor.identity = augmentor.identity.double()

    def loss(mean, log_deviation):
        torch.manual_seed(5)
        return torch.func.functional_call(augmentor, {"mean": mean, "log_deviation": log_deviation}, (X[:3].double(),))

    parameters = [
        parameter.detach().clone().requires_grad_() for parameter in (augmentor.mean, augmentor.log_deviation)
    ]
    assert torch.autograd.gradcheck(loss, parameters, eps=1e-7, atol=1e-4)


def test_mix_is_the_blend_by_its_definition():
    """Patch by patch and image by image."""
    augmentor = built({"name": "mix", "images": 3, "patch": 4, "width": 5, "noise": 0.5, "temperature": 0.7})
    torch.manual_seed(2)
    eps = torch.randn(4, 5)
    torch.manual_seed(2)
    mixed = augmentor(X)
    assert mixed.shape == (4, 2, 8, 8)
    for group in range(4):
        query = augmentor.mean + augmentor.log_deviation.exp() * eps[group]
        images = X[3 * group : 3 * group + 3]
        for top in (0, 4):
            for left in (0, 4):
                patches = images[..., top : top + 4, left : left + 4]
                scores = [augmentor.key(patch.flatten()) @ query / math.sqrt(5) / 0.7 for patch in patches]
                weights = torch.stack(scores).softmax(0)
                expected = sum(weight * patch for weight, patch in zip(weights, patches, strict=True))
                torch.testing.assert_close(mixed[group, :, top : top + 4, left : left + 4], expected)


def test_mix_goes_from_the_mean_to_cut_and_paste():
    cut = built({"name": "mix", "temperature": 1e-6})
    with torch.no_grad():
        weights = cut.weights(X)
        assert set(weights.flatten().tolist()) == {0.0, 1.0}
        even = built({"name": "mix", "temperature": 1e6})(X)
    torch.testing.assert_close(even, X.unflatten(0, (6, 2)).mean(1), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "section", [*SECTIONS, ["affine", {"name": "gaussian", "noise": 0.2}], [GENERATOR, "affine"]], ids=str
)
def test_a_saved_augmentor_comes_back(section, tmp_path):
    augmentor = built(section)
    augmentor.save(tmp_path / "augmentor.safetensors", epoch=3)
    again = load_augmentor(tmp_path / "augmentor.safetensors")
    outputs = []
    for one in (augmentor, again):
        torch.manual_seed(0)
        outputs.append(one(X))
    assert torch.equal(*outputs)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("afine", "unknown augmentor 'afine': did you mean 'affine'?"),
        ({"noise": 1}, "unknown augmentor 'None': known: affine, gaussian, generator, mix"),
        ({"name": "affine", "noise": 0.0}, "key 'noise' is 0.0: set it to a number above 0"),
        ({"name": "mix", "images": 1}, "key 'images' is 1: set it to at least 2"),
        (
            ["affine", "mix"],
            "augmentor mix trains in the student's own step and cannot be part of a chain: use it alone",
        ),
    ],
)
def test_mistakes(section, message):
    with pytest.raises(UserError) as error:
        make_augmentor(section)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("augmentor", "shape", "message"),
    [
        (
            Mix(patch=3),
            (1, 28, 28),
            "augmentor mix cuts patches of 3 pixels, inputs of 1x28x28 do not divide into them",
        ),
        (Affine(), (1, 1, 1), "augmentor affine moves images, inputs of shape [1, 1, 1] are none"),
        (Chain([Gaussian(), Affine()]), (3,), "augmentor affine moves images, inputs of shape [3] are none"),
    ],
)
def test_inputs_that_do_not_fit(augmentor, shape, message):
    with pytest.raises(UserError) as error:
        augmentor.fit(shape)
    assert str(error.value).startswith(message)


def test_files_that_hold_no_augmentor(tmp_path):
    (tmp_path / "text").write_text("nothing")
    save_file({"mean": torch.zeros(2, 3)}, tmp_path / "plain")
    for name, message in {
        "text": "is truncated or not a safetensors file",
        "missing": "there is no file",
        "plain": "does not say which augmentor it holds: give a run's augmentor.safetensors",
    }.items():
        with pytest.raises(UserError, match=message):
            load_augmentor(tmp_path / name)


def quantities_of(matrix):
    """Those of an affine augmentor that always gives the image the transformation `matrix` [2, 3] in [-1, 1] coordinates."""
    augmentor = Affine(noise=1e-9)
    turned = torch.linalg.inv(matrix[:, :2])
    inverse = torch.cat([turned, -turned @ matrix[:, 2:]], dim=1)
    augmentor.mean.data = (inverse - torch.eye(2, 3, dtype=torch.float64)).float()
    return {name: draws.mean().item() for name, draws in augmentor.quantities(5).items()}


@pytest.mark.parametrize(("turn", "lean", "wide", "high", "right", "down"), [
    (0, 0, 1, 1, 0, 0), (30, 0, 1, 1, 0, 0), (0, 20, 1, 1, 0, 0), (0, 0, 1.5, 0.7, 0, 0), (-50, 10, 0.8, 1.2, 0.25, -0.1),
])  # fmt: skip
def test_what_an_affine_transformation_does_is_read_back(turn, lean, wide, high, right, down):
    cos, sin, tan = math.cos(math.radians(turn)), math.sin(math.radians(turn)), math.tan(math.radians(lean))
    rotation = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    shear = torch.tensor([[1, -tan], [0, 1]], dtype=torch.float64)
    zoom = torch.tensor([[wide, 0], [0, high]], dtype=torch.float64)
    shift = torch.tensor([[2 * right], [2 * down]], dtype=torch.float64)
    found = quantities_of(torch.cat([rotation @ shear @ zoom, shift], dim=1))
    expected = [right, down, turn, wide, high, lean]
    assert list(found.values()) == pytest.approx(expected, abs=1e-3)


def moved(augmentor, step=0.1):
    """After something was learned."""
    with torch.no_grad():
        for number, parameter in enumerate(augmentor.learned().values()):
            parameter += step * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    return augmentor


def test_a_generator_adds_what_it_has_learned_since_the_start():
    augmentor = moved(built(GENERATOR))
    begun = built(GENERATOR).start
    torch.manual_seed(0)
    found = augmentor(X)
    torch.manual_seed(0)
    expected = X + augmentor.model(X, augmentor.log_noise.exp()) - begun(X)
    torch.testing.assert_close(found, expected.clamp(0, 1))
    assert (found - X).abs().max() > 0.01
    assert not any(parameter.requires_grad for parameter in augmentor.start.parameters())


@pytest.mark.parametrize("section", [GENERATOR, [GENERATOR, "affine"]], ids=str)
def test_a_generator_is_saved_whole(section, tmp_path):
    """Without the file that it was loaded from, and with what it started as."""
    load_generator("fresh:vae", channels=2, image_size=(8, 8), seed=5).save(tmp_path / "vae.safetensors")
    section = {**GENERATOR, "model": f"file:{tmp_path / 'vae.safetensors'}"} if section == GENERATOR else section
    augmentor = moved(built(section))
    augmentor.save(tmp_path / "augmentor.safetensors")
    (tmp_path / "vae.safetensors").unlink()
    again = load_augmentor(tmp_path / "augmentor.safetensors")
    outputs = []
    for one in (augmentor, again):
        torch.manual_seed(0)
        outputs.append(one(X))
    assert torch.equal(*outputs)


class Twice(nn.Module):
    """A generator of one number."""

    def __init__(self, scale=1.0, trains=True):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale), requires_grad=trains)

    def forward(self, x, noise):
        return x * self.scale + noise * torch.randn_like(x)


def test_any_module_generates():
    module = Twice()
    augmentor = Generative(model=module)
    augmentor.fit((2, 8, 8))
    assert (silent(augmentor)(X) - X).abs().max() < 1e-5
    assert set(augmentor.learned()) == {"log_noise", "model.body.scale"}
    with torch.no_grad():
        augmentor.model.body.scale += 1
    assert module.scale == 1.0


class Bad(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.weight, self.does = nn.Parameter(torch.ones(())), forward

    def forward(self, x, noise):
        return self.does(self, x)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (Bad(lambda self, x: self.weight * x.detach()), "passes no gradients to its images and parameters"),
        (Bad(lambda self, x: x * 2), "passes no gradients to its images and parameters"),
        (Twice(trains=False), "passes no gradients to its images and parameters"),
        (Bad(lambda self, x: (x * self.weight)[:, :1]), r"gives \[2, 1, 8, 8\] for images of \[2, 2, 8, 8\]"),
        (Bad(lambda self, x: x * self.weight / 0), "values that are not finite"),
        (nn.Linear(3, 3), r"fails on images of 2x8x8 .*it is called as module\(x, noise\)"),
    ],
)
def test_generators_that_cannot_be_learned(body, reason):
    with pytest.raises(UserError, match=reason):
        Generative(model=body).fit((2, 8, 8))


def test_a_generator_of_something_else():
    with pytest.raises(UserError, match=r"^key 'model' is 3: give a generator's name, for example vae$"):
        make_augmentor({"name": "generator", "model": 3})
    with pytest.raises(UserError, match=r"draws images, inputs of shape \[1, 1, 1\] are none"):
        Generative().fit((1, 1, 1))
