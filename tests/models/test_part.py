"""The part of a network between two layers against the network itself."""

import copy
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from osmose import torchvision_ops
from osmose.errors import UserError
from osmose.models import load_model
from osmose.models.chain import chain
from osmose.models.part import Part
from osmose.models.zoo import ZOO

GREY = (1, 28, 28)
FACTS = {"users": 5, "items": 4, "genres": 2, "features": torch.eye(4, 2), "tables": "t", "mean": 3.0}


class Shared(nn.Module):
    """One activation for all layers, a tuple on the way, and a residual connection inside a block."""

    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.pair = Pair()
        self.block = nn.Conv2d(4, 4, 3, padding=1)
        self.end = nn.Sequential(nn.BatchNorm2d(4), self.act)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        first, second = self.pair(self.act(self.norm(self.stem(x))))
        x = first + second
        x = self.end(x + self.act(self.block(x)))
        return self.head(x.mean((2, 3)))


class Pair(nn.Module):
    def forward(self, x):
        return x, 2 * x


class Skipped(nn.Module):
    """A connection from the input passes by every layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        x = x.flatten(1)[:, :4]
        return self.head(self.second(self.first(x) + x))


def states_of(network, low, high, x):
    """What both layers give, by hooks of the test's own."""
    seen = {}
    modules = dict(network.body.named_modules())
    hooks = [modules[p].register_forward_hook(lambda m, i, o, p=p: seen.update({p: o})) for p in (low, high)]
    network(x)
    for hook in hooks:
        hook.remove()
    return seen[low], seen[high]


TIMM = [
    pytest.param(
        f"fresh:timm:{name}", marks=pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra 'vision'")
    )
    for name in ("resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224")
]


def assert_the_rest(network, x):
    """Both what a part gives and the gradient of its state are the whole network's."""
    layers = chain(network)
    low, high = layers[0], layers[-1]
    part = Part(network, low, high, x.shape[1:])
    state, expected = states_of(network, low, high, x)
    given = state.detach().requires_grad_()
    found = part(given)
    torch.testing.assert_close(found, expected)
    weights = torch.rand(found.shape, generator=torch.Generator().manual_seed(2))
    (found * weights).sum().backward()
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), state)
    torch.testing.assert_close(given.grad, expected_gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*(f"zoo:{name}" for name in ZOO if name != "mlp-xs"), "fresh:nix:vit", *TIMM])
def test_it_is_the_rest_of_the_network(name):
    network = load_model(name, num_classes=10, channels=1, image_size=(28, 28)).eval()
    assert_the_rest(network, torch.rand(5, *GREY, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("family", ["resnet18", "vit"])
def test_it_is_the_rest_of_a_module_of_torchvision(family):
    torchvision_ops.install()
    models = pytest.importorskip("torchvision.models", exc_type=ImportError)
    torch.manual_seed(0)
    if family == "vit":
        body = models.VisionTransformer(32, 8, num_layers=3, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=5)
        nn.init.normal_(body.heads.head.weight)
    else:
        body = models.resnet18(num_classes=5)
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert_the_rest(load_model(body, channels=3, image_size=(32, 32)).eval(), x)


def test_only_what_comes_behind_the_state_runs():
    network = load_model("zoo:vit-s").eval()
    ran = []
    for path, module in network.body.named_modules():
        if path.startswith(("patches.project", "layers.")) and path.count(".") == 1:
            forward = type(module).forward
            module.forward = lambda *given, m=module, p=path, f=forward: (ran.append(p), f(m, *given))[1]
    part = Part(network, "layers.1", "layers.2", GREY)
    ran.clear()
    part(torch.rand(3, 16, 64))
    assert ran == ["layers.2"]  # and what stood in place of a module's forward is there again
    network(torch.rand(3, *GREY))
    assert ran[1:] == ["patches.project", "layers.0", "layers.1", "layers.2"]


def test_shared_activations_and_running_statistics():
    body = Shared()
    network = load_model(body, channels=1)
    part = Part(network, "norm", "end", (1, 6, 6))
    network.train()
    state, _ = states_of(network, "norm", "end", torch.rand(3, 1, 6, 6))
    before = {name: buffer.clone() for name, buffer in body.named_buffers() if "running" in name}
    found = part(state)
    assert all(torch.equal(body.get_buffer(name), buffer) for name, buffer in before.items())
    assert body.end[0].momentum == 0.1
    x = 3 * F.relu(state)
    x = x + F.relu(body.block(x))
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)  # the batch's own
    torch.testing.assert_close(found, F.relu((x - mean) / (var + 1e-5).sqrt()))


class InPlace(nn.Module):
    """A layer behind the cut changes what it is given."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.act, self.head = (
            nn.Linear(4, 4),
            nn.Linear(4, 4),
            nn.ReLU(inplace=True),
            nn.Linear(4, 3),
        )

    def forward(self, x):
        return self.head(self.second(self.act(self.first(x.flatten(1)))))


def test_the_state_that_is_given_stays_what_it_is():
    part = Part(load_model(InPlace(), channels=1), "first", "second", (1, 2, 2))
    state = torch.randn(3, 4)
    before = state.clone()
    part(state)
    assert torch.equal(state, before)


class InPlaceBefore(nn.Module):
    """What an earlier layer gave is changed in place before the cut; so are the samples."""

    def __init__(self):
        super().__init__()
        self.embed, self.first, self.second, self.head = (nn.Linear(4, 4) for _ in range(4))
        self.position = nn.Parameter(torch.randn(4))

    def forward(self, x):
        tokens = self.embed(x.flatten(1).mul_(2))
        tokens += self.position
        return self.head(self.second(F.gelu(self.first(tokens))))


def test_what_an_earlier_layer_gave_may_be_changed_in_place():
    network = load_model(InPlaceBefore(), channels=1).eval()
    part = Part(network, "first", "second", (1, 2, 2))
    for size in (3, 1, 3):
        state = torch.randn(size, 4)
        torch.testing.assert_close(part(state), network.body.second(F.gelu(state)))


def test_counts_of_batches_stay():
    network = load_model("zoo:resnet-s").train()
    norm = network.body.blocks[1].first[1]
    before = norm.num_batches_tracked.clone()
    Part(network, "blocks.0", "blocks.2", GREY)(torch.rand(2, 16, 14, 14))
    assert torch.equal(norm.num_batches_tracked, before)
    assert norm.momentum == 0.1


@pytest.mark.parametrize("family", ["resnet", "vit"])
def test_it_is_the_rest_of_an_image_classifier_of_transformers(family):
    torchvision_ops.install()
    pytest.importorskip("torchvision", exc_type=ImportError)
    models = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if family == "vit":
        sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
        settings = models.ViTConfig(**sizes, image_size=28, patch_size=7, num_channels=1, num_labels=5)
        body = models.ViTForImageClassification(settings)
    else:
        sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2]}
        body = models.ResNetForImageClassification(models.ResNetConfig(**sizes, num_channels=1, num_labels=5))
    network = load_model(body).eval()
    x = torch.rand(3, *GREY, generator=torch.Generator().manual_seed(1))
    assert (network.num_classes, network.preprocessing.channels) == (5, 1)
    assert torch.equal(network(x).logits, body(x).logits)
    assert_the_rest(network, x)


def test_ratings_are_cut_too():
    network = load_model("fresh:ratings:two-tower,width=3,hidden=4", ratings=FACTS).eval()
    low, *_, high = chain(network)
    assert (low, high) == ("towers", "layers.1")
    x = torch.tensor([[1, 2], [4, 0], [0, 3]])
    state, expected = states_of(network, low, high, x)
    torch.testing.assert_close(Part(network, low, high, (2,))(state), expected)


@pytest.mark.parametrize(
    ("name", "low", "high", "message"),
    [
        ("zoo:vit-s", "layers.9", "layers.2", "unknown layer of 'zoo:vit-s': 'layers.9': did you mean 'layers."),
        (
            "zoo:vit-s",
            "layers.2",
            "layers.0",
            "layer 'layers.0' of 'zoo:vit-s' does not come behind 'layers.2': exchange them",
        ),
        ("zoo:vit-s", "layers.1", "layers.1", "does not come behind 'layers.1'"),
        (
            "zoo:vit-s",
            "layers.0.attention",
            "layers.2",
            "cannot be cut at layer 'layers.0.attention': what comes behind it",
        ),
        ("zoo:resnet-s", "blocks.0.first", "blocks.2", "cannot be cut at layer 'blocks.0.first'"),
        ("zoo:resnet-s", "blocks.1.shortcut", "blocks.2", "cannot be cut at layer 'blocks.1.shortcut'"),
    ],
)
def test_where_it_cannot_be_cut(name, low, high, message):
    with pytest.raises(UserError) as caught:
        Part(load_model(name), low, high, GREY)
    assert message in str(caught.value)


def test_a_connection_past_the_cut_is_found():
    network = load_model(Skipped(), channels=1)
    with pytest.raises(
        UserError, match="cannot be cut at layer 'first': what comes behind it depends on more than its output"
    ):
        Part(network, "first", "head", (1, 2, 2))


def test_a_connection_is_found_past_weights_that_are_zero():
    """What they give says nothing; they stay what they are, and where they are all there is the cut is right."""
    body = Skipped()
    nn.init.zeros_(body.head.weight)
    before = copy.deepcopy(body.state_dict())
    with pytest.raises(UserError, match="cannot be cut at layer 'first'"):
        Part(load_model(body, channels=1), "first", "head", (1, 2, 2))
    Part(load_model(body, channels=1), "second", "head", (1, 2, 2))
    assert all(torch.equal(before[name], value) for name, value in body.state_dict().items())


def test_what_a_network_raises_in_the_trial_is_named():
    """It means that it cannot be cut there, and the network trains as before."""

    class Asserting(Skipped):
        def forward(self, x):
            state = self.first(x.flatten(1)[:, :4])
            given = self.second(state)
            if not torch.equal(given, F.linear(state, self.second.weight, self.second.bias)):
                raise KeyError("something else")
            return self.head(given)

    network = load_model(Asserting(), channels=1).train()
    with pytest.raises(UserError, match="cannot be cut at layer 'second'.*something else"):
        Part(network, "second", "head", (1, 2, 2))
    assert network.training


def test_small_networks_of_ratings_are_cut_whatever_their_seed():
    """Of a few samples some units are dead behind a ReLU."""
    for seed in range(20):
        network = load_model("fresh:ratings:two-tower,width=3,hidden=4", ratings=FACTS, seed=seed)
        Part(network, "towers", "layers.1", (2,))


def test_ratings_of_one_item_or_one_user_are_cut_and_of_both_are_not():
    for users, items in ((5, 1), (1, 4), (1, 1)):
        facts = {**FACTS, "users": users, "items": items, "features": torch.ones(items, 2)}
        network = load_model("fresh:ratings:two-tower,width=3,hidden=4", ratings=facts)
        if users * items > 1:
            Part(network, "towers", "layers.1", (2,))
        else:
            with pytest.raises(UserError, match="knows one user and one item: there is nothing to tell apart"):
                Part(network, "towers", "layers.1", (2,))


def test_layers_that_are_called_twice_or_give_no_tensor():
    network = load_model(Shared(), channels=1)
    with pytest.raises(
        UserError, match="layer 'act' of .* is called 3 times for a sample: name one that is called once"
    ):
        Part(network, "act", "head", (1, 6, 6))
    with pytest.raises(UserError, match="layer 'pair' of .* gives tuple: name one that gives one tensor"):
        Part(network, "pair", "head", (1, 6, 6))


def test_unknown_families_are_asked_for_their_layers():
    with pytest.raises(
        UserError, match="does not say which of its layers follow one another: name them in the method's section"
    ):
        chain(load_model(Shared(), channels=1))
