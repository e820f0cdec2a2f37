import math

import pytest
import torch
from torch import nn

from osmose.models import load_model, show_models
from osmose.models.zoo import ZOO
from osmose.models.zoo.body import Patches
from osmose.models.zoo.vit import _Attention, _DropPath


def parameters(name: str) -> int:
    return sum(parameter.numel() for parameter in ZOO[name]().parameters())


def test_the_zoo_has_three_small_networks_of_each_family():
    families = [architecture.family for architecture in ZOO.values()]
    assert {family: families.count(family) for family in families} == {"cnn": 3, "transformer": 3, "mlp": 3}
    sizes = [parameters(name) for name in ZOO]
    assert min(sizes) >= 5_000
    assert max(sizes) <= 500_000


def test_parameter_counts_are_the_papers_formulas():
    settings = ZOO["vit-xs"].settings
    d, depth, patch = settings["width"], settings["depth"], settings["patch"]
    attention, mlp, norm = 4 * (d * d + d), 2 * d * 2 * d + 2 * d + d, 2 * d
    embedding = patch * patch * d + d + (28 // patch) ** 2 * d
    assert parameters("vit-xs") == embedding + depth * (attention + mlp + 2 * norm) + norm + 10 * d + 10

    hidden = ZOO["mlp-xs"].settings["width"]
    assert parameters("mlp-xs") == 784 * hidden + hidden + 10 * hidden + 10

    a, b, c = ZOO["resnet-s"].settings["widths"]
    stem, shortcuts = 9 * a + 2 * a, a * b + 2 * b + b * c + 2 * c
    blocks = sum(
        9 * (inputs * outputs + outputs * outputs) + 4 * outputs for inputs, outputs in ((a, a), (a, b), (b, c))
    )
    assert parameters("resnet-s") == stem + blocks + shortcuts + 10 * c + 10


@pytest.mark.parametrize("name", ZOO)
def test_other_images_and_classes_are_taken(name):
    network = load_model(f"fresh:zoo:{name}", num_classes=100, channels=3, image_size=(33, 40))
    assert network.preprocessing.mean == (0.286,) * 3
    assert network.preprocessing.size == (None if ZOO[name].family == "cnn" else (33, 40))
    assert network(torch.rand(2, 3, 33, 40)).logits.shape == (2, 100)
    assert network(torch.rand(2, 1, 28, 28)).logits.shape == (2, 100)


def test_every_network_is_packaged_with_trained_weights():
    rows = show_models()
    for row in rows:
        network = load_model(row["name"])
        assert network.num_classes == len(network.classes) == 10
        assert 50 < row["heldout_accuracy"] < 100
        assert 50 < row["test_accuracy"] < 100
        assert row["recipe"]
    assert sum(row["bytes"] for row in rows) <= 6_000_000


def test_patches_are_cut_in_rows_and_padded_at_the_end():
    patches = Patches(channels=1, image_size=(4, 5), size=2, width=4)
    nn.init.zeros_(patches.project.bias)
    with torch.no_grad():
        patches.project.weight.copy_(torch.eye(4).view(4, 1, 2, 2))
    tokens = patches(torch.arange(20.0).view(1, 1, 4, 5))
    assert patches.number == 6
    assert tokens[0, 0].tolist() == [0, 1, 5, 6]
    assert tokens[0, 2].tolist() == [4, 0, 9, 0]
    assert tokens[0, 3].tolist() == [10, 11, 15, 16]


def test_attention_is_the_papers_equation():
    attention = _Attention(6, 2)
    x = torch.randn(3, 5, 6)
    heads = []
    for head in range(2):
        rows = [slice(part * 6 + head * 3, part * 6 + head * 3 + 3) for part in range(3)]
        q, k, v = (x @ attention.qkv.weight[part].T + attention.qkv.bias[part] for part in rows)
        heads.append(torch.softmax(q @ k.transpose(1, 2) / math.sqrt(3), -1) @ v)
    torch.testing.assert_close(attention(x), attention.out(torch.cat(heads, -1)))


def test_drop_path_leaves_samples_out_and_keeps_the_mean():
    drop = _DropPath(0.25)
    torch.manual_seed(0)
    kept = drop(torch.ones(4000, 3, 2))
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(kept, kept[:, :1, :1].expand_as(kept))
    assert kept.mean().item() == pytest.approx(1, abs=0.04)
    assert torch.equal(drop.eval()(kept), kept)
