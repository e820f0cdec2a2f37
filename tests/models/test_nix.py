"""The MNIST networks of Nix et al. 2022: shapes and sizes from their description."""

from importlib.util import find_spec

import pytest
import torch

from osmose.errors import UserError
from osmose.models import load_model


def test_the_teacher_has_the_parameters_of_its_description():
    network = load_model("fresh:nix:cnn", num_classes=10)
    expected = (9 + 1) * 128 + (128 * 9 + 1) * 64 + (64 * 9 + 1) * 64 + 65 * 10
    assert sum(parameter.numel() for parameter in network.parameters()) == expected
    # 28 -> 26 -> 24, pooled to 12 -> 10, pooled to 3
    seen = []
    network.body[-3].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    out = network(torch.rand(2, 1, 28, 28))
    assert seen == [(2, 64, 3, 3)]
    assert out.logits.shape == (2, 10)
    assert out.features.shape == (2, 64)


def test_the_student_has_the_parameters_of_its_description():
    network = load_model("fresh:nix:mlp", num_classes=10)
    expected = 785 * 512 + 513 * 128 + 129 * 32 + 32 * 10
    assert sum(parameter.numel() for parameter in network.parameters()) == expected
    assert network(torch.rand(2, 1, 28, 28)).features.shape == (2, 32)


def test_the_vision_transformer_has_the_parameters_of_its_description():
    network = load_model("fresh:nix:vit", num_classes=10)
    layer = 2 * 64 + 64 * 3 * 512 + (512 * 64 + 64) + 2 * 64 + (64 * 128 + 128) + (128 * 64 + 64)
    expected = (49 * 64 + 64) + 64 + 17 * 64 + 6 * layer + 2 * 64 + (64 * 128 + 128) + (128 * 10 + 10)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected
    out = network(torch.rand(2, 1, 28, 28))
    assert (out.logits.shape, out.features.shape) == ((2, 10), (2, 128))
    assert abs(network.body.position.std().item() - 1) < 0.1
    assert load_model("fresh:nix:vit-cifar10", num_classes=10, channels=3, image_size=(32, 32)).body.position.shape == (
        1,
        65,
        512,
    )


def test_the_classifier_reads_the_class_token_which_attends_to_every_patch():
    body = load_model("fresh:nix:vit", num_classes=10).body.eval()
    x = torch.rand(1, 1, 28, 28, requires_grad=True)
    tokens = []
    body.norm.register_forward_hook(lambda _, inputs, outputs: tokens.append(outputs))
    logits = body(x)
    assert torch.equal(body.head(tokens[0][:, 0]), logits)
    logits.sum().backward()
    assert (x.grad.unfold(2, 7, 7).unfold(3, 7, 7).abs().sum((-1, -2)) > 0).all()


def test_a_layer_against_plain_attention():
    body = load_model("fresh:nix:vit", num_classes=10).body.eval()
    layer, x = body.layers[0], torch.randn(2, 5, 64)
    normal = layer.norm(x)
    q, k, v = (part.view(2, 5, 8, 64) for part in layer.qkv(normal).chunk(3, dim=-1))
    said = torch.zeros(2, 5, 8, 64)
    for image in range(2):
        for head in range(8):
            weights = (q[image, :, head] @ k[image, :, head].T / 8).softmax(-1)
            said[image, :, head] = weights @ v[image, :, head]
    after = x + layer.out(said.flatten(2))
    torch.testing.assert_close(layer(x), after + layer.mlp(after))


def test_the_residual_network_keeps_the_size_of_small_images():
    network = load_model("fresh:nix:resnet18", num_classes=10).eval()
    seen = []
    network.body.layer1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    assert network(torch.rand(2, 1, 28, 28)).logits.shape == (2, 10)
    assert seen == [(2, 64, 28, 28)]


def test_patches_must_divide_the_image():
    with pytest.raises(UserError, match="patches of 7 pixels do not divide images of 32x32"):
        load_model("fresh:nix:vit", num_classes=10, image_size=(32, 32))


@pytest.mark.parametrize("key", ["cnn", "mlp", "vit-cifar10", "resnet18"])
def test_images_stay_in_0_to_1_and_a_saved_network_comes_back(key, tmp_path):
    network = load_model(f"fresh:nix:{key}", num_classes=4, channels=3, image_size=(32, 32)).eval()
    assert (network.preprocessing.mean, network.preprocessing.std) == ((0.0,) * 3, (1.0,) * 3)
    network.save(tmp_path / "a.safetensors")
    again = load_model(f"file:{tmp_path / 'a.safetensors'}").eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(x).logits, network(x).logits)


def test_unknown_names():
    with pytest.raises(UserError, match=r"^unknown architecture of nix 'cn': did you mean 'cnn'\?$"):
        load_model("fresh:nix:cn")
    with pytest.raises(UserError, match=r"^'nix:cnn': .* has no weights here; use 'fresh:nix:cnn'$"):
        load_model("nix:cnn")


@pytest.mark.parametrize("key", ["mlp", "cnn", "vit", "vit-cifar10", "resnet18"])
def test_without_a_classifier_and_with_a_new_one(key, tmp_path):
    """What has learned without labels goes on as a student."""
    if key == "resnet18" and find_spec("timm") is None:
        pytest.skip("needs the extra 'vision'")
    images = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    backbone = load_model(f"fresh:nix:{key}", num_classes=0, channels=3, image_size=(28, 28)).eval()
    features = backbone(images).features
    assert backbone.num_classes == 0
    assert torch.equal(backbone(images).logits, features)
    backbone.save(tmp_path / "backbone.safetensors")
    assert torch.equal(load_model(f"file:{tmp_path / 'backbone.safetensors'}").eval()(images).features, features)
    headed = load_model(f"head:file:{tmp_path / 'backbone.safetensors'}", num_classes=7).eval()
    assert headed(images).logits.shape == (2, 7)
    torch.testing.assert_close(headed(images).features, features)
    headed.save(tmp_path / "headed.safetensors")
    again = load_model(f"head:file:{tmp_path / 'headed.safetensors'}", num_classes=5).eval()
    assert again(images).logits.shape == (2, 5)
    torch.testing.assert_close(again(images).features, features)
