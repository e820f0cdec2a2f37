import copy
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

from osmose.errors import UserError
from osmose.models import load_model
from osmose.models.chain import chain

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra 'vision'")
VIT = "vit_tiny_patch16_224,img_size=32,patch_size=8,depth=5"


@pytest.fixture
def trained(tmp_path):
    """A saved network by its name, as a name for a new head."""

    def save(name: str) -> str:
        path = tmp_path / "trained.safetensors"
        load_model(f"fresh:{name}", num_classes=10, channels=3, image_size=(32, 32)).save(path)
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
def test_class_tokens_and_patches_are_those_that_timm_tells(last_layers, trained):
    plain = load_model(trained(f"timm:{VIT}")).eval()
    name = f"head:{plain.name},last_layers={last_layers}"
    (*_, last), fronts = zip(
        *plain.body.get_intermediate_layers(plain.prepare(IMAGES), n=last_layers, norm=True, return_prefix_tokens=True),
        strict=True,
    )
    classes = torch.cat([front[:, 0] for front in fronts], 1)
    torch.testing.assert_close(load_model(name, num_classes=4).eval()(IMAGES).features, classes)
    both = load_model(f"{name},patch_mean=true", num_classes=4).eval()(IMAGES).features
    torch.testing.assert_close(both, torch.cat([classes, last.mean(1)], 1))


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
        ("zoo:vit-s", "last_layers=4", "key 'last_layers' is 4: set it to 1 to 3, its layers"),
        ("zoo:vit-s", "last_layers=0", "key 'last_layers' is 0: set it to 1 to 3, its layers"),
        ("zoo:vit-s", "last_layers=2.5", "key 'last_layers' is 2.5: set it to 1 to 3, its layers"),
        ("zoo:vit-s", "patch_mean=3", "key 'patch_mean' is 3: set it to true or false"),
        ("zoo:cnn-s", "last_layers=1", "last_layers: PlainCNN is no transformer of the zoo or timm"),
        pytest.param("timm:test_resnet", "last_layers=2", "last_layers: ResNet is no transformer", marks=needs_timm),
    ],
)
def test_what_has_no_such_layers_is_one_line(name, option, line, trained):
    with pytest.raises(UserError, match=rf"'head:file:.*,{option}': {line}"):
        load_model(f"head:{trained(name)},{option}", num_classes=4)


@needs_timm
def test_layers_of_several_widths_are_one_line(trained):
    network = load_model(
        f"head:{trained('timm:swin_tiny_patch4_window7_224,img_size=32,embed_dim=12')},last_layers=2", num_classes=4
    )
    with pytest.raises(UserError, match=r"the layers give .*, not tokens of one width: leave it out"):
        network(IMAGES)


def test_layers_are_read_once(trained, tmp_path):
    load_model(f"head:{trained('zoo:vit-s')},last_layers=2", num_classes=3).save(tmp_path / "probe.safetensors")
    with pytest.raises(UserError, match="reads several layers already: leave last_layers out"):
        load_model(f"head:file:{tmp_path}/probe.safetensors,last_layers=2", num_classes=3)
