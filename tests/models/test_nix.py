"""The MNIST networks of Nix et al. 2022: shapes and sizes from their description."""

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


@pytest.mark.parametrize("key", ["cnn", "mlp"])
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
