import copy
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

from osmose.errors import UserError
from osmose.models import Network, load_model
from osmose.models.chain import chain
from osmose.models.part import Part

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra 'vision'")
VIT = "vit_tiny_patch16_224,img_size=32,patch_size=8,depth=5"


@pytest.fixture
def trained(tmp_path):
    """A saved network by its name, as a name for a new head."""

    def save(name: str) -> str:
        path = tmp_path / "trained.safetensors"
        network = load_model(f"fresh:{name}", num_classes=10, channels=3, image_size=(32, 32))
        draws = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for key, parameter in network.body.named_parameters():
                if "norm" in key:  # new ones change nothing
                    parameter.copy_(torch.rand(parameter.shape, generator=draws))
        network.save(path)
        return f"file:{path}"

    return save


IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_classifier_reads_the_mean_tokens_of_the_last_layers(trained):
    plain = load_model(trained("zoo:vit-s")).eval()
    network = load_model(f"head:{plain.name},last_layers=3", num_classes=4).eval()
    body = plain.body
    tokens = body.patches(plain.prepare(IMAGES)) + body.position
    states = []
    for layer in body.layers:
        tokens = layer(tokens)
        states.append(F.layer_norm(tokens, tokens.shape[-1:], body.norm.weight, body.norm.bias, body.norm.eps))
    features = torch.cat([state.mean(1) for state in states[-3:]], 1)
    said = network(IMAGES)
    torch.testing.assert_close(said.features, features)
    torch.testing.assert_close(said.tokens, torch.cat(states[-3:], 2))
    torch.testing.assert_close(said.logits, features @ network.head.weight.T + network.head.bias)
    assert network.head.weight.shape == (4, 3 * tokens.shape[-1])


@needs_timm
@pytest.mark.parametrize("last_layers", [1, 4])
@pytest.mark.parametrize("options", ["", ",reg_tokens=4"])
def test_class_tokens_and_patches_are_those_that_timm_tells(options, last_layers, trained):
    plain = load_model(trained(f"timm:{VIT}{options}")).eval()
    name = f"head:{plain.name},last_layers={last_layers}"
    patches, classes = _told(plain, last_layers)
    torch.testing.assert_close(load_model(name, num_classes=4).eval()(IMAGES).features, classes)
    both = load_model(f"{name},patch_mean=true", num_classes=4).eval()(IMAGES).features
    torch.testing.assert_close(both, torch.cat([classes, patches[-1].mean(1)], 1))


@needs_timm
@pytest.mark.parametrize("fc_norm", [False, True])
def test_without_a_class_token_they_are_the_means_of_patches(fc_norm, trained):
    plain = load_model(trained(f"timm:{VIT},global_pool=avg,fc_norm={str(fc_norm).lower()}")).eval()
    patches, _ = _told(plain, 2)
    means = [each.mean(1) for each in patches]
    if fc_norm:
        norm = plain.body.fc_norm
        means = [F.layer_norm(mean, mean.shape[1:], norm.weight, norm.bias, norm.eps) for mean in means]
    network = load_model(f"head:{plain.name},last_layers=2", num_classes=4).eval()
    torch.testing.assert_close(network(IMAGES).features, torch.cat(means, 1))


def _told(network: Network, count: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """What timm tells of the last layers: the patches [B, N, E] of each, and their class tokens side by side."""
    told = network.body.get_intermediate_layers(network.prepare(IMAGES), n=count, norm=True, return_prefix_tokens=True)
    return [patches for patches, _ in told], torch.cat([front[:, 0] for _, front in told], 1)


def test_it_is_a_network_as_any_other(trained, tmp_path):
    network = load_model(f"head:{trained('zoo:vit-s')},last_layers=2", classes=("a", "b")).eval()
    said = network(IMAGES)
    network.save(tmp_path / "probe.safetensors")
    back = load_model(f"file:{tmp_path}/probe.safetensors").eval()
    twin = copy.deepcopy(network)
    with torch.no_grad():
        network.body.body.position.zero_()
    assert not torch.equal(network(IMAGES).logits, said.logits)
    for other in (back, twin):
        assert torch.equal(other(IMAGES).logits, said.logits)
        assert (other.classes, chain(other)) == (("a", "b"), [f"body.layers.{number}" for number in range(3)])
    renewed = load_model(f"head:{back.name},depth=2", num_classes=5).eval()
    assert renewed.head.weight.shape == (5, 2 * back.body.body.width)
    assert len(renewed.body.body.layers) == 2
    assert torch.equal(renewed.body.body.position, back.body.body.position)


@pytest.mark.parametrize(
    ("name", "option", "line"),
    [
        *(
            ("zoo:vit-s", f"last_layers={number}", f"key 'last_layers' is {said}: set it to a number from 1 to 3")
            for number, said in ((4, 4), (0, 0), (2.0, 2.0), ("true", True), ("abc", "'abc'"))
        ),
        ("zoo:vit-s", "last_layers=1,patch_mean=3", "key 'patch_mean' is 3: set it to true or false"),
        ("zoo:vit-s", "last_layers=1,patch_mean=true", "patch_mean: its classifier reads no class token"),
        ("zoo:vit-s", "patch_mean=true", "patch_mean stands beside last_layers: add last_layers=1"),
        ("zoo:cnn-s", "last_layers=1", "PlainCNN has no known layers in a row before a norm, as transformers"),
        pytest.param("timm:test_resnet", "last_layers=2", "ResNet has no known layers in a row", marks=needs_timm),
    ],
)
def test_what_cannot_be_read_is_one_line(name, option, line, trained):
    with pytest.raises(UserError, match=rf"'head:file:.*,{option}': {line}"):
        load_model(f"head:{trained(name)},{option}", num_classes=4)


@needs_timm
@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("swin_tiny_patch4_window7_224,img_size=32,embed_dim=12", r"\[3, 2, 2, 48\], \[3, 1, 1, 96\]"),
        ("tnt_s_legacy_patch16_224,img_size=32,depth=2", r"tuple, \[3, 5, 384\]"),
    ],
)
def test_layers_that_give_something_else_are_one_line(name, shapes, trained):
    network = load_model(f"head:{trained(f'timm:{name}')},last_layers=2", num_classes=4)
    with pytest.raises(UserError, match=rf"layers of \w+ give {shapes}, not tokens of one shape: leave it out"):
        network(IMAGES)


@pytest.mark.parametrize(
    "name", ["file:probe,last_layers=2", "timm:vit,last_layers=2", "fresh:zoo:vit-s,last_layers=2"]
)
def test_the_option_is_of_a_new_head(name):
    with pytest.raises(
        UserError, match=f"last_layers is of a new classifier: write head:{name.removeprefix('fresh:')}"
    ):
        load_model(name, num_classes=3)


def test_a_network_that_reads_several_layers_keeps_them(trained, tmp_path):
    load_model(f"head:{trained('zoo:vit-s')},last_layers=3", num_classes=3).save(tmp_path / "probe.safetensors")
    name = f"head:file:{tmp_path}/probe.safetensors"
    with pytest.raises(UserError, match="made with last_layers: leave it out, or give the network that it was made"):
        load_model(f"{name},last_layers=2", num_classes=3)
    with pytest.raises(UserError, match=rf"'{name},depth=2' cannot be built: key 'last_layers' is 3"):
        load_model(f"{name},depth=2", num_classes=3)


def test_a_pass_that_does_not_end_leaves_nothing(trained):
    network = load_model(f"head:{trained('zoo:vit-s')},last_layers=2", num_classes=3).eval()
    said = network(IMAGES).logits
    part = Part(network, "body.layers.0", "body.layers.1", (3, 32, 32))
    state = network.body.body.patches(network.prepare(IMAGES))
    assert part(state).requires_grad
    assert torch.equal(copy.deepcopy(network)(IMAGES).logits, said)
