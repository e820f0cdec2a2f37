import copy
import json
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

from osmose.errors import UserError
from osmose.models import Network, Preprocessing, load_model
from osmose.models.zoo import ZOO

IMAGES = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))


class Plain(nn.Module):
    """A module as users write them: no method of timm's, an odd order of layers, more than one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.first = nn.Linear(4, 5)
        self.last = nn.Linear(5, 7)

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.first(self.convolution(x).mean((2, 3))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.hidden(x))


def identity(channels: int = 3, **preprocessing: object) -> Network:
    """A network whose logits are its normalised input's first pixels, so that preprocessing can be read off."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(4 * channels, 4 * channels, bias=False))
    nn.init.eye_(body[1].weight)
    facts = {"mean": (0.0,) * channels, "std": (1.0,) * channels, "channels": channels} | preprocessing
    return Network(
        body,
        name="identity",
        architecture=None,
        preprocessing=Preprocessing(**facts),
        classes=None,
        num_classes=4 * channels,
    )


def test_layers_that_are_listened_to():
    """Also where a layer behind works in place, and where timm's methods run the body."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(784, 6), nn.ReLU(inplace=True), nn.Linear(6, 4))
    network = load_model(body, channels=1)
    x = (IMAGES - network.mean) / network.std
    network.listen(["1", "3"])
    said = network(IMAGES)
    assert torch.equal(said.states["1"], body[1](x.flatten(1)))
    assert (said.states["1"] < 0).any()
    assert torch.equal(said.field("states.3"), said.logits)
    assert network(IMAGES[:1]).states["1"].shape == (1, 6)
    staged = load_model("fresh:zoo:vit-xs").eval()
    staged.listen(path for path, module in staged.body.named_modules() if type(module).__name__ == "_Layer")
    states = list(staged(IMAGES).states.values())
    assert [state.shape for state in states] == [(3, 16, 24)] * 2
    assert not torch.equal(*states)


def test_a_layer_that_is_listened_to_twice_speaks_once():
    body = nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
    network = load_model(body)
    for _ in range(2):
        network.listen(["1"])
    assert len(body[1]._forward_hooks) == 1


def test_a_network_that_settles_is_listened_to_no_more():
    network = load_model("fresh:zoo:vit-xs")
    network.listen(["layers.0"])
    copied = copy.deepcopy(network)
    for one in (network, copied):
        one.settle()
        assert one(IMAGES).states == {}
        assert not one.body.layers[0]._forward_hooks


def test_listening_mistakes():
    network = load_model(nn.Sequential(nn.Flatten(), nn.Linear(784, 4)), channels=1)
    with pytest.raises(UserError, match="unknown layer of 'module:Sequential': 'body.1'"):
        network.listen(["body.1"])


def test_of_a_deep_network_an_unknown_layer_names_the_outermost():
    units = [nn.Sequential(nn.Identity(), nn.Identity()) for _ in range(30)]
    network = load_model(nn.Sequential(nn.Flatten(), *units, nn.Linear(784, 4)), channels=1)
    outermost = sorted(map(str, range(32)))
    with pytest.raises(UserError) as caught:
        network.listen(["block"])
    told, listed = str(caught.value).split(": known: ")
    assert told == "unknown layer of 'module:Sequential': 'block'"
    assert listed.split(", ")[:32] == outermost
    assert listed.endswith("and 52 others")


@pytest.mark.parametrize("name", ZOO)
def test_zoo_network_shows_logits_features_and_tokens(name):
    network = load_model(f"fresh:zoo:{name}", num_classes=7).eval()
    out = network(IMAGES)
    assert out.logits.shape == (3, 7)
    assert out.features.shape == (3, network.head.in_features)
    assert out.tokens.shape[0] == 3
    assert torch.equal(out.logits, network.head(out.features))
    pooled = out.tokens.flatten(2).mean(2) if out.tokens.dim() == 4 else out.tokens.mean(1)
    torch.testing.assert_close(out.features, pooled)
    out.logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra 'vision'")
def test_a_body_that_cannot_be_asked_for_the_classifier_it_was_made_without():
    network = load_model("fresh:timm:efficientvit_m0", num_classes=0).eval()
    assert network(torch.rand(2, 3, 64, 64)).features.shape == (2, network.body.num_features)


@pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra 'vision'")
@pytest.mark.parametrize(
    ("name", "options", "tokens", "single"),
    [
        ("resnet18", {}, (3, 512, 1, 1), True),
        ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "depth": 2}, (3, 17, 192), True),
        ("deit_tiny_distilled_patch16_224", {"img_size": 32, "depth": 1}, (3, 6, 192), False),  # two heads
        ("swin_tiny_patch4_window7_224", {"img_size": 32, "window_size": 1, "depths": (1, 1)}, (3, 192, 4, 4), True),
        ("volo_d1_224", {"img_size": 32}, (3, 5, 384), False),  # an auxiliary head
        ("resnetv2_18", {}, (3, 512, 1, 1), False),  # a convolution for a classifier
    ],
)
def test_timm_network_equals_the_bare_model(name, options, tokens, single):
    network = load_model(f"fresh:timm:{name}", num_classes=7, channels=1, **options).eval()
    out = network(IMAGES)
    size = network.preprocessing.size or (28, 28)
    import timm  # only now: load_model prepares torchvision for it

    mode = "bicubic" if timm.get_pretrained_cfg(name).interpolation == "bicubic" else "bilinear"
    x = F.interpolate(IMAGES, size, mode=mode, antialias=True).clamp(0, 1)
    x = (x - network.preprocessing.mean[0]) / network.preprocessing.std[0]
    torch.testing.assert_close(out.logits, network.body(x))
    assert out.tokens.shape == tokens
    assert out.features.dim() == 2
    if single:
        assert torch.equal(out.logits, network.head(out.features))


def test_normalisation_is_the_closed_form():
    network = identity(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    x = torch.full((1, 3, 2, 2), 0.6)
    expected = torch.tensor([1.0] * 4 + [1.6] * 4 + [0.15] * 4)
    torch.testing.assert_close(network(x).logits[0], expected)


def test_one_channel_is_repeated_and_three_are_refused_by_one():
    x = torch.rand(2, 1, 2, 2)
    torch.testing.assert_close(identity(3)(x).logits, x.repeat(1, 3, 1, 1).flatten(1))
    with pytest.raises(UserError, match=r"'identity' takes images of 1 channels, these have 3.*fresh:"):
        identity(1)(torch.rand(2, 3, 2, 2))


def test_integers_are_refused():
    with pytest.raises(UserError, match=r"torch.uint8: divide them by 255"):
        identity(1)(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))


def test_a_fixed_size_resizes_what_does_not_fit():
    network = identity(1, size=(2, 2))
    x = torch.tensor([[0.0, 1.0], [0.25, 0.5]])[None, None]
    assert torch.equal(network(x).logits, x.flatten(1))
    # Antialiased halving weighs 4 pixels by the triangle (1, 3, 3, 1)/8; at the border the missing one drops out.
    big = torch.rand(1, 1, 4, 4)
    weights = torch.tensor([[3.0, 3.0, 1.0, 0.0], [0.0, 1.0, 3.0, 3.0]]) / 7
    torch.testing.assert_close(network(big).logits.view(2, 2), weights @ big[0, 0] @ weights.T)


def test_a_plain_module_shows_what_its_last_linear_layer_reads():
    module = Plain()
    network = load_model(module, mean=(0.5,) * 3, std=(0.25,) * 3)
    x = torch.rand(2, 3, 8, 8)
    out = network(x)
    normalised = (x - 0.5) / 0.25
    torch.testing.assert_close(out.logits, module(normalised))
    torch.testing.assert_close(out.features, module.hidden(normalised))
    assert out.tokens is None
    assert (network.name, network.num_classes, network.preprocessing.channels) == ("module:Plain", 7, 3)
    assert network.head is module.last


def test_a_plain_modules_features_are_flattened():
    network = load_model(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Linear(8, 3), nn.Flatten()))
    assert network(torch.rand(2, 1, 8, 8)).features.shape == (2, 2 * 8 * 8)


def test_a_module_without_a_head_gives_features():
    network = load_model(nn.Sequential(nn.Conv2d(1, 5, 1), nn.AdaptiveAvgPool2d(1)))
    said = network(torch.rand(2, 1, 8, 8))
    assert network.num_classes == 0
    assert said.features.shape == (2, 5)
    with pytest.raises(UserError, match=r"has no nn\.Linear for a classifier: end it in one"):
        _ = network.head


def test_modules_that_cannot_be_read_are_refused():
    class Two(Plain):
        def forward(self, x):
            return super().forward(x), x

    with pytest.raises(UserError, match="'module:Two' returns tuple: give a module that returns its logits alone"):
        load_model(Two())(torch.rand(1, 3, 8, 8))

    class Idle(Plain):
        def forward(self, x):
            return self.hidden(x)

    with pytest.raises(UserError, match="did not run its last linear layer 'last'"):
        load_model(Idle())(torch.rand(1, 3, 8, 8))


def test_class_names_and_statistics_must_fit():
    with pytest.raises(UserError, match="'module:Plain' has 7 outputs but 2 class names"):
        load_model(Plain(), classes=("cat", "dog"))
    with pytest.raises(UserError, match="do not fit 3 channels"):
        Preprocessing(mean=(0.0,), std=(1.0,), channels=3)


@pytest.mark.parametrize("make", [lambda: load_model("fresh:zoo:vit-xs"), lambda: load_model(Plain())])
def test_a_copy_is_equal_and_apart(make):
    network = make().eval()
    twin = copy.deepcopy(network)
    assert twin.digest() == network.digest()
    before, features = network(IMAGES).logits, twin(IMAGES).features
    with torch.no_grad():
        twin.head.weight.zero_()
    assert torch.equal(network(IMAGES).logits, before)
    assert torch.equal(twin(IMAGES).features, features)
    assert torch.equal(twin(IMAGES).logits, twin.head.bias.expand(3, -1))


@pytest.mark.parametrize("name", ["cnn-s", "vit-m", "mixer-s"])
def test_runs_on_the_meta_device(name):
    with torch.device("meta"):
        network = load_model(f"fresh:zoo:{name}")
        out = network(torch.empty(5, 1, 32, 32))
    assert out.logits.is_meta
    assert out.logits.shape == (5, 10)


def test_runs_under_bf16_autocast():
    network = load_model("fresh:zoo:vit-xs").eval()
    with torch.autocast("cpu", torch.bfloat16):
        out = network(IMAGES)
    assert out.logits.dtype == torch.bfloat16
    torch.testing.assert_close(out.logits.float(), network(IMAGES).logits, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("make", [lambda: load_model("fresh:zoo:vit-xs"), lambda: load_model(Plain())])
def test_compiles_into_one_graph(make):
    network = make().eval()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    expected = network(IMAGES)
    for _ in range(2):
        out = compiled(IMAGES)
        torch.testing.assert_close(out.logits, expected.logits)
        torch.testing.assert_close(out.features, expected.features)


def test_digest_follows_names_values_dtypes_and_preprocessing():
    network = identity(1)
    seen = {network.digest(), identity(1, mean=(0.5,)).digest(), identity(1, size=(2, 2)).digest()}
    network.body[1].weight.data[0, 0] += 1e-6
    seen.add(network.digest())
    network.body[1].weight.data = network.body[1].weight.data.double()
    seen.add(network.digest())
    network.body[1].weight.data = network.body[1].weight.data.view(2, 8)
    seen.add(network.digest())
    network.body.append(nn.Identity())
    assert network.digest() in seen
    network.body[1].register_buffer("extra", torch.tensor(3))
    seen.add(network.digest())
    assert len(seen) == 7
    assert identity(1).digest() == identity(1).digest()


def test_a_saved_file_says_what_it_is(tmp_path):
    network = load_model("fresh:zoo:cnn-xs", classes=tuple("abc"))
    path = tmp_path / "student.safetensors"
    network.save(path, test_accuracy=0.5, recipe={"epochs": 3})
    with safe_open(path, framework="pt") as file:
        about = {key: json.loads(value) for key, value in file.metadata().items()}
        assert set(file.keys()) == set(network.body.state_dict())
    assert about["name"] == "fresh:zoo:cnn-xs"
    assert about["classes"] == ["a", "b", "c"]
    assert about["num_classes"] == 3
    assert about["architecture"]["name"] == "cnn-xs"
    assert about["preprocessing"]["mean"] == [0.286]
    assert (about["test_accuracy"], about["recipe"]) == (0.5, {"epochs": 3})
    assert list(tmp_path.iterdir()) == [path]


def test_equal_networks_are_equal_files(tmp_path):
    network = load_model("fresh:zoo:vit-xs", num_classes=4)
    for name in "abcdef":  # the writer of safetensors orders its header by chance
        network.save(tmp_path / name, epoch=3, note="x")
    assert len({(tmp_path / name).read_bytes() for name in "abcdef"}) == 1


def test_a_flipped_bit_in_the_weights_is_found(tmp_path):
    path = tmp_path / "a.safetensors"
    load_model("fresh:zoo:vit-xs", num_classes=4).save(path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"are not those that were saved: the file is damaged; copy it again$"):
        load_model(f"file:{path}")


def test_outputs_in_another_order():
    network = load_model("fresh:zoo:cnn-xs", classes=("a", "b", "c"))
    network.eval()
    before = network(IMAGES).logits
    assert network.reorder(("c", "a", "b"))
    assert network.classes == ("c", "a", "b")
    torch.testing.assert_close(network(IMAGES).logits, before[:, [2, 0, 1]], rtol=0, atol=0)
    assert not network.reorder(("c", "a", "d"))
    assert network.classes == ("c", "a", "b")


def test_tied_and_strided_weights_are_saved(tmp_path):
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 4))
    module[2].weight = module[1].weight
    module[1].bias.data = torch.arange(8.0)[::2]
    load_model(module).save(tmp_path / "tied.safetensors")
    with safe_open(tmp_path / "tied.safetensors", framework="pt") as file:
        assert torch.equal(file.get_tensor("2.weight"), module[1].weight)
        assert torch.equal(file.get_tensor("1.bias"), torch.tensor([0.0, 2.0, 4.0, 6.0]))


def test_a_failed_write_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "student.safetensors"
    path.write_bytes(b"before")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*student.safetensors.*No space left on device"):
        identity(1).save(path)
    assert path.read_bytes() == b"before"
    with pytest.raises(UserError, match="cannot write"):
        identity(1).save(Path("missing") / "folder" / "x.safetensors")


def test_the_wrapper_costs_microseconds():
    body = nn.Sequential(nn.Flatten(), nn.Linear(4, 4))
    network = load_model(body, channels=1)
    x = torch.rand(1, 1, 2, 2)

    def seconds(call):
        start = time.thread_time()
        for _ in range(200):
            call(x)
        return (time.thread_time() - start) / 200

    with torch.no_grad():
        overhead = min(seconds(network) for _ in range(20)) - min(seconds(body) for _ in range(20))
    assert overhead < 50e-6
