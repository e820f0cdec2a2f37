"""Neighbours, linear classifiers and attention distances against brute force, scikit-learn and closed forms."""

import math
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from osmose.data.dataset import load_data
from osmose.data.inputs import MemoryInputs
from osmose.data.split import Split
from osmose.evaluate import attention_distance
from osmose.evaluate import linear_probe as probes
from osmose.evaluate.attention_distance import attention_distances
from osmose.evaluate.feature_map import feature_map
from osmose.evaluate.features import features
from osmose.evaluate.linear_probe import linear_probe
from osmose.evaluate.neighbours import nearest_neighbours, neighbours_votes
from osmose.evaluate.readings import read_features
from osmose.models import load_model


def clouds(count, seed, classes=3, width=5, noise=1.0):
    """Points around a random centre a class."""
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(count) % classes
    return centres[labels] + noise * torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), labels


def test_neighbours_one_by_one():
    (bank, labels), (queries, _) = clouds(40, 0), clouds(25, 1)
    found = neighbours_votes(bank, labels, queries, classes=3, numbers=(7, 3, 12), temperature=0.07)
    assert found.keys() == {7, 3, 12}
    for row, query in enumerate(queries):
        cosines = [float(query @ one / query.norm() / one.norm()) for one in bank]
        for k, voted in found.items():
            nearest = sorted(range(40), key=lambda place: -cosines[place])[:k]
            votes = [sum(math.exp(cosines[p] / 0.07) for p in nearest if labels[p] == c) for c in range(3)]
            assert voted[row].tolist() == pytest.approx(votes, rel=1e-4)
    assert torch.equal(nearest_neighbours(bank, labels, queries, classes=3, k=3), found[3].argmax(-1))


def test_more_neighbours_than_there_are():
    bank, labels = clouds(6, 0)
    assert nearest_neighbours(bank, labels, bank, classes=3, k=20).shape == (6,)


def test_the_linear_probe_is_logistic_regression():
    """scikit-learn minimises C * sum of losses + |w|^2 / 2: the same with C = 1 / (n * decay)."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    (points, labels), (others, _) = clouds(200, 0), clouds(500, 1)
    points, others = points * 3 + 2, others * 3 + 2
    probe = linear_probe(points, labels, None, classes=3)
    mean, deviation = points.mean(0), points.std(0)
    theirs = linear_model.LogisticRegression(C=1 / (200 * probe.decay), tol=1e-8, max_iter=2000)
    theirs.fit(((points - mean) / deviation).numpy(), labels.numpy())
    wanted = torch.from_numpy(theirs.predict(((others - mean) / deviation).numpy()))
    assert (probe(others) == wanted).float().mean() > 0.995
    torch.testing.assert_close(probe.weight * deviation, torch.from_numpy(theirs.coef_).float(), rtol=0, atol=2e-3)


def test_the_decay_is_the_best_on_heldout_samples(monkeypatch):
    """Few points with many coordinates: what fits best is not what holds."""
    points, labels = clouds(30, 0, width=25, noise=4.0)
    others = clouds(600, 1, width=25, noise=4.0)
    chosen = linear_probe(points, labels, others, classes=3)
    right = (chosen(others[0]) == others[1]).float().mean()
    found = []
    for decay in probes._DECAYS:
        monkeypatch.setattr(probes, "_DECAYS", (decay,))
        one = linear_probe(points, labels, others, classes=3)
        found.append((one(others[0]) == others[1]).float().mean())
    assert right == max(found) > min(found)


@pytest.fixture(scope="module")
def split(grey):
    return load_data(grey).train.subset(torch.arange(10))


def network(name, **options):
    return load_model(f"fresh:zoo:{name}", num_classes=0, channels=1, image_size=(12, 12), **options)


def test_features_are_what_the_network_says_shard_by_shard(grey):
    split = load_data(grey).train
    assert len(split) > 250  # more than a batch
    net = network("cnn-s").train()
    whole = features(net, split)
    assert net.training
    plain = net.eval()(split.inputs.read(torch.arange(len(split))).float() / 255).features
    torch.testing.assert_close(whole, plain, rtol=0, atol=1e-5)
    shards = [features(net, split, shard=number, shards=2) for number in range(2)]
    assert torch.equal(sum(shards), whole)


def even_distance(grid, pitch):
    """The mean distance between two places of a square grid, drawn evenly."""
    places = [(i * pitch, j * pitch) for i in range(grid) for j in range(grid)]
    return sum(math.dist(a, b) for a in places for b in places) / len(places) ** 2


def test_attention_that_looks_everywhere_alike(split):
    """With no queries and keys every place is attended to alike."""
    net = network("vit-xs", patch=4)
    for module in net.modules():
        if isinstance(getattr(module, "qkv", None), nn.Linear):
            nn.init.zeros_(module.qkv.weight)
            nn.init.zeros_(module.qkv.bias)
    assert attention_distances(net, split) == pytest.approx([even_distance(3, 4)] * 2, rel=1e-5)


@pytest.mark.parametrize("at_once", [2**24, 60, 1])
def test_a_transformers_own_attention(split, at_once, monkeypatch):
    """The weights that scaled_dot_product_attention would take, from the layer's own queries and keys."""
    monkeypatch.setattr(attention_distance, "_WEIGHTS", at_once)
    net = network("vit-xs", patch=4).eval()
    body, x = net.body, net.prepare(split.inputs.read(torch.arange(10)).float() / 255)
    tokens = body.patches(x) + body.position
    layer = body.layers[0]
    q, k, _ = layer.attention.qkv(layer.norm1(tokens)).unflatten(-1, (3, 3, 8)).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-1, -2) / math.sqrt(8)).softmax(-1).detach()
    places = [(i * 4, j * 4) for i in range(3) for j in range(3)]
    distances = torch.tensor([[math.dist(a, b) for b in places] for a in places])
    assert attention_distances(net, split)[0] == pytest.approx(float((weights * distances).sum(-1).mean()), rel=1e-5)


def test_normalised_queries_and_keys_are_those_that_attend(split):
    """Against the weights that timm's own code drops out of."""
    if find_spec("timm") is None:
        pytest.skip("needs the extra 'vision'")
    net = load_model(
        "fresh:timm:vit_tiny_patch16_224,img_size=12,patch_size=4,qk_norm=true,depth=1", channels=1, num_classes=4
    )
    layer = net.eval().body.blocks[0].attn
    with torch.no_grad():
        layer.q_norm.weight.mul_(5)
    layer.fused_attn, seen = False, []
    ear = layer.attn_drop.register_forward_hook(lambda module, given, said: seen.append(given[0]))
    net(split.inputs.read(torch.arange(10)).float() / 255)
    ear.remove()
    weights = seen[0][:, :, 1:, 1:].detach()
    weights = weights / weights.sum(-1, keepdim=True)  # of patches alone
    places = [(i * 4, j * 4) for i in range(3) for j in range(3)]
    distances = torch.tensor([[math.dist(a, b) for b in places] for a in places])
    (found,) = attention_distances(net, split)
    assert found == pytest.approx(float((weights * distances).sum(-1).mean()), rel=1e-4)
    assert found != pytest.approx(even_distance(3, 4), rel=1e-3)


@pytest.mark.parametrize("at_once", [2**24, 3000, 100])
def test_maps_attend_by_the_cosines_of_their_places(split, at_once, monkeypatch):
    """The same at any width: channels that repeat the others change nothing."""
    monkeypatch.setattr(attention_distance, "_WEIGHTS", at_once)
    net = network("cnn-xs").eval()
    states = []
    ears = [layer.register_forward_hook(lambda *said: states.append(said[-1])) for layer in net.body.layers]
    net(split.inputs.read(torch.arange(len(split))).float() / 255)
    for ear in ears:
        ear.remove()
    wanted = []
    for state in states:
        places = state.flatten(2).transpose(1, 2).detach().double()
        pitch, side = 12 / state.shape[-1], state.shape[-1]
        total = 0.0
        for sample in places:
            for a, one in enumerate(sample):
                cosines = [float(torch.corrcoef(torch.stack([one, other]))[0, 1]) for other in sample]
                weights = [math.exp(8 * cosine) for cosine in cosines]
                away = [math.dist(divmod(a, side), divmod(b, side)) * pitch for b in range(len(sample))]
                total += sum(w * d for w, d in zip(weights, away, strict=True)) / sum(weights)
        wanted.append(total / places.shape[0] / places.shape[1])
    assert attention_distances(net, split) == pytest.approx(wanted, rel=1e-4)
    assert wanted[0] != pytest.approx(even_distance(6, 2), rel=0.02)


def test_maps_that_are_alike_everywhere_and_families_without_maps(split):
    net = network("cnn-xs")
    for layer in net.body.layers:
        nn.init.zeros_(layer[0].weight)
    found = attention_distances(net, split)
    assert found == pytest.approx([even_distance(6, 2), even_distance(3, 4), even_distance(2, 6)], rel=1e-5)
    assert attention_distances(network("mlp-xs"), split) == []
    assert not net._ears


def test_images_that_are_not_square_span_both_sides():
    net = load_model("fresh:zoo:cnn-xs", num_classes=0, channels=1, image_size=(24, 16))
    for layer in net.body.layers:
        nn.init.zeros_(layer[0].weight)
    images = Split(MemoryInputs(torch.zeros(4, 1, 24, 16, dtype=torch.uint8)), None, torch.arange(4))
    places = [(i * 2, j * 2) for i in range(12) for j in range(8)]
    wanted = sum(math.dist(a, b) for a in places for b in places) / len(places) ** 2
    assert attention_distances(net, images)[0] == pytest.approx(wanted, rel=1e-5)


class Attention(nn.Module):
    """Of windows: each is a sample of its own."""

    num_heads = 2

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(4, 12)

    def forward(self, x):
        return self.qkv(x.reshape(-1, 4, 4))[..., :4].reshape(x.shape)


class Windows(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.attention, self.head = nn.Conv2d(1, 4, 3, 3), Attention(), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.attention(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


def test_attention_in_windows_is_not_read(split):
    assert attention_distances(load_model(Windows(), channels=1), split) == []


class Blocks(nn.Module):
    """A chain of two blocks, of which one gives two maps, or never runs."""

    def __init__(self, kind):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)])
        self.head, self.kind = nn.Linear(4, 2), kind
        if kind == "pair":
            self.blocks[0].register_forward_hook(lambda layer, given, made: (made, made))

    def forward(self, x):
        x = self.blocks[0].forward(x) if self.kind == "idle" else self.blocks[0](x)
        return self.head(self.blocks[1](x[0] if self.kind == "pair" else x).mean((2, 3)))


@pytest.mark.parametrize("kind", ["pair", "idle"])
def test_layers_that_do_not_give_one_tensor_are_not_read(split, kind):
    network = load_model(Blocks(kind), channels=1)
    assert attention_distances(network, split) == []
    assert network(torch.rand(2, 1, 12, 12)).states == {}


def test_few_points_have_no_map():
    assert feature_map(torch.randn(2, 5)) is None


@pytest.mark.parametrize("features", [torch.ones(40, 8), torch.full((40, 8), 0.3), torch.randn(40, 1)])
def test_features_that_nothing_can_be_made_of_have_no_map(features):
    """Those of a collapsed network end t-SNE's own start with a fault of the process."""
    assert feature_map(features) is None


def test_a_map_keeps_neighbours_together():
    pytest.importorskip("sklearn")
    points, labels = clouds(90, 0, width=8)
    places = feature_map(points * 0.1 + labels[:, None] * 10.0)
    nearest = torch.cdist(places, places).fill_diagonal_(1e9).argmin(-1)
    assert (labels[nearest] == labels).float().mean() > 0.95


def test_as_many_training_samples_are_known_as_are_asked_for(split):
    """Of two, the first and the last, each sample has the class of that which it is more like."""
    net, labelled = network("cnn-xs"), replace(split, labels=torch.arange(len(split)) % 4)
    (found,) = read_features(net, labelled, None, {"same": labelled}, classes=4, bank=2).values()
    directions = nn.functional.normalize(features(net, labelled), dim=-1)
    first, last = (directions @ directions[place] for place in (0, -1))
    assert found.neighbours[20].tolist() == [0 if nearer else 9 % 4 for nearer in (first > last).tolist()]
