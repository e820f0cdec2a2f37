"""MOKD and DINO against their equations written out, and what must not reach where."""

import copy
import itertools
import json
import math
import os
import re
import signal
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from safetensors.torch import load_file

import osmose
from osmose import api, execution, grid, torchvision_ops
from osmose.cli import show_transfer
from osmose.data.batch import Batch
from osmose.data.crops import Crops
from osmose.engine import checkpoint
from osmose.engine.clock import Clock
from osmose.engine.fabric import make_fabric
from osmose.engine.folder import RunFolder
from osmose.engine.interrupt import Interrupted
from osmose.engine.progress import Progress
from osmose.errors import UserError
from osmose.methods.dino import CNN, Dino, Temperature
from osmose.methods.heads import MLPHead, MLPOutputs, Prototypes, THead, TOutputs
from osmose.methods.learner import Learner, looks
from osmose.methods.mokd import Mokd
from osmose.models import load_model
from osmose.models.backbones import Backbones
from osmose.models.layout import Layout
from osmose.recipe import resolve
from osmose.tasks.backbones import _headless

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra 'vision'")
CLOCK = Clock(step=0, steps_per_epoch=2, epochs=4, batch_size=6)
PIXELS = torch.randint(0, 256, (6, 1, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SMALL = {"outputs": 13, "mlp_head": MLPHead(hidden=9, bottleneck=5)}
T_HEAD = THead(layers=2, heads=2, width=8, ratio=2)


def network(name, seed=0):
    return load_model(f"fresh:zoo:{name}", num_classes=0, channels=1, image_size=(12, 12), seed=seed)


def batch(**settings):
    crops = Crops(**{"locals": 2, "local_size": 8, **settings})(PIXELS, torch.arange(6), 0)
    return Batch(torch.arange(6), 0, crops[0][0], None, crops=crops)


def build(method=Mokd, names=("cnn-xs", "vit-xs,patch=4"), shapes=((1, 12, 12), (1, 8, 8)), **settings):
    own = {"t_head": T_HEAD} if method is Mokd else {}
    torch.manual_seed(5)
    made = method(
        Backbones([network(name, place) for place, name in enumerate(names)]), {}, **{**SMALL, **own, **settings}
    )
    made.fit_to(shapes, torch.arange(6))
    return made.train()


def moved(method):
    """The method after twins, branches and centres went apart."""
    draws = torch.Generator().manual_seed(1)
    for learner in method.learners:
        learner.centres.copy_(torch.randn(learner.centres.shape, generator=draws) * 0.1)
        for name, parameter in learner.twin.named_parameters():
            if not (name.endswith("length") and learner.twin.get_submodule(name.rpartition(".")[0]).fixed):
                parameter.data += 0.05 * torch.randn(parameter.shape, generator=draws)
    return method


def entropy(target, scores):
    """H(target, softmax(scores / 0.1)), the mean over samples."""
    return -(target * (scores / 0.1).log_softmax(-1)).sum(-1).mean()


def seen(branch, crops):
    """Features and tokens of crops [B, C, h, w], by the network itself."""
    said = branch.network.run(branch.network.prepare(crops, size=tuple(crops.shape[-2:])))
    tokens = said.tokens.flatten(2).transpose(1, 2) if said.tokens.dim() == 4 else said.tokens
    return said.features, tokens


def t_scores(head, tokens, query=None):
    """The T-Head with its modules one by one, with the query last instead of first."""
    side = math.isqrt(tokens.shape[1])
    own = math.isqrt(len(head.positions))
    positions = head.positions
    if side != own:
        image = positions.T.reshape(1, -1, own, own)
        positions = F.interpolate(image, (side, side), mode="bicubic").flatten(2)[0].T
    x = head.project(tokens) + positions
    if query is not None:
        x = torch.cat([x, query[:, None]], 1)
    for layer in head.layers.layers:
        x = layer(x)
    x = head.layers.norm(x)
    x = (x[:, :-1] if query is not None else x).mean(1)
    return x @ (F.normalize(head.last.direction, dim=-1) * head.last.length).T


def mlp_scores(head, features):
    first, _, second, _, third = head.layers
    x = third(F.gelu(second(F.gelu(first(features)))))
    return (x / x.norm(dim=-1, keepdim=True)) @ (F.normalize(head.last.direction, dim=-1) * head.last.length).T


@pytest.mark.parametrize("search", ["paper", "code"])
def test_the_loss_is_the_papers_equations(search):
    weights = (0.3, 0.7)
    rising = Temperature(start=0.04, end=0.07, warmup_epochs=1, cnn_warmup_epochs=3)  # half and a sixth of the way
    method = moved(build(cross_weights=weights, search=search, teacher_temperature=rising))
    found = method(batch(), replace(CLOCK, step=1))
    crops = batch().crops
    views = [*crops[0], *crops[1]]
    wanted, expected = 0.0, {}
    for i, (learner, other) in enumerate(zip(method.learners, reversed(method.learners), strict=True)):
        alone = (0.045, 0.055)[i]  # what the first network, a CNN, teaches itself rises more slowly
        m, t, tokens, features = [], [], [], []
        for view in views:
            f, z = seen(learner.branch, view)
            features.append(f)
            tokens.append(z)
            m.append(mlp_scores(learner.branch.mlp_head, f))
            t.append(t_scores(learner.branch.t_head, z))
        own, foreign = [], []
        for one, into in ((learner, own), (other, foreign)):
            for view in crops[0]:
                f, z = seen(one.twin, view)
                into.append((mlp_scores(one.twin.mlp_head, f), t_scores(one.twin.t_head, z), z))

        def taught(raw, centre, temperature=0.055):
            return ((raw - centre) / temperature).softmax(-1).detach()

        pairs = [(g, v) for g in range(2) for v in range(4) if g != v]
        of = {
            "self": [entropy(taught(own[g][0], learner.centres[0], alone), m[v]) for g, v in pairs],
            "cross": [entropy(taught(foreign[g][0], other.centres[0]), m[v]) for g, v in pairs],
            "self-tokens": [entropy(taught(own[g][1], learner.centres[1], alone), t[v]) for g, v in pairs],
        }
        head = learner.branch.t_head
        if search == "paper":
            asked = [(a, 1 - a) for a in range(2)]
            of["cross-tokens"] = [
                entropy(
                    taught(
                        t_scores(other.twin.t_head, foreign[b][2], head.project(tokens[a].mean(1))), learner.centres[2]
                    ),
                    t[a],
                )
                for a, b in asked
            ]
        else:
            of["cross-tokens"] = [
                entropy(taught(t_scores(other.twin.t_head, foreign[0][2], head.project(tokens[v].mean(1))), 0.0), t[v])
                for v in (2, 3)
            ]
        for name, terms in of.items():
            value = sum(terms) / len(terms)
            expected[f"{name}{i + 1}"] = value
            wanted = wanted + value * (weights[i] if name.startswith("cross") else 1)
    for name, value in expected.items():
        torch.testing.assert_close(found.parts[name], value.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.loss, wanted, rtol=1e-5, atol=1e-6)
    parameters = [p for p in method.parameters() if p.requires_grad]
    ours = torch.autograd.grad(found.loss, parameters)
    theirs = torch.autograd.grad(wanted, parameters)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm() + 1e-6  # float32, and scores over a temperature of 0.045


def test_a_transformer_of_the_heads_width_asks_by_its_own_features_in_the_codes_form():
    method = build(search="code", t_head=THead(layers=1, heads=2, width=24))
    head = method.learners[1].branch.t_head
    assert isinstance(head.project, torch.nn.Identity)
    asked = []
    other = method.learners[0].twin.t_head
    forward = other.forward
    other.forward = lambda tokens, layout, query=None: asked.append(query) or forward(tokens, layout, query)
    method(batch(), CLOCK)
    query = next(one for one in asked if one is not None)
    features = torch.cat([seen(method.learners[1].branch, view)[0] for view in batch().crops[1]])
    torch.testing.assert_close(query, features.detach(), rtol=1e-5, atol=1e-6)
    assert isinstance(
        build(t_head=THead(layers=1, heads=2, width=24)).learners[1].branch.t_head.project, torch.nn.Linear
    )


def test_the_query_may_stand_anywhere_and_has_no_position():
    """Invariant 5; the head's own order is the query first."""
    layout = Layout.of(torch.zeros(1, 9, 6))
    head = TOutputs(T_HEAD, layout, 8, 13, project=True)
    tokens, query = torch.randn(4, 9, 6), torch.randn(4, 8)
    torch.testing.assert_close(head(tokens, layout, query), t_scores(head, tokens, query), rtol=1e-4, atol=1e-5)
    assert head(tokens, layout, query).shape == (4, 13)
    assert not torch.allclose(head(tokens, layout), head(tokens, layout, query))


@pytest.mark.parametrize("search", ["paper", "code"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_networks_loss_does_not_reach_the_other_nor_any_twin(search, number):
    method = moved(build(search=search))
    for parameter in method.parameters():
        parameter.requires_grad_(True)  # twins too: what they say is given without gradients
    found, losses = [], method.losses
    method.losses = lambda *given: found.append(losses(*given)) or found[-1]
    method(batch(), CLOCK)
    alone = sum(weight * loss for weight, loss in found[number].values())
    branch, other = (list(method.learners[one].branch.parameters()) for one in (number, 1 - number))
    twins = [p for learner in method.learners for p in learner.twin.parameters()]
    assert any(one is not None for one in torch.autograd.grad(alone, branch, allow_unused=True, retain_graph=True))
    assert all(one is None for one in torch.autograd.grad(alone, [*other, *twins], allow_unused=True))


def test_centres_and_twins_after_a_step():
    method = moved(build(momentum=0.9, centre_momentum=0.8))
    before = copy.deepcopy(method)
    halves = [batch().rows(slice(0, 3)), batch().rows(slice(3, 6))]
    for half in halves:
        method(half, CLOCK)
    clock = Clock(step=3, steps_per_epoch=2, epochs=4, batch_size=6)
    method.after_step(clock)
    momentum = 1 - (1 - 0.9) * 0.5 * (1 + math.cos(math.pi * 3 / 8))
    for learner, old in zip(method.learners, before.learners, strict=True):
        (other,) = (one for one in before.learners if one is not old)
        views = batch().crops[0]
        asks = [old.branch.t_head.project(seen(old.branch, view)[1].mean(1)) for view in views]
        raw = [
            [mlp_scores(old.twin.mlp_head, seen(old.twin, view)[0]) for view in views],
            [t_scores(old.twin.t_head, seen(old.twin, view)[1]) for view in views],
            [t_scores(other.twin.t_head, seen(other.twin, views[1 - a])[1], asks[a]) for a in range(2)],
        ]
        for centre, was, scores in zip(learner.centres, old.centres, raw, strict=True):
            wanted = 0.8 * was + 0.2 * torch.stack(scores).mean((0, 1))
            torch.testing.assert_close(centre, wanted, rtol=1e-4, atol=1e-6)
        for twin, was, branch in zip(
            learner.twin.parameters(), old.twin.parameters(), old.branch.parameters(), strict=True
        ):
            torch.testing.assert_close(twin, momentum * was + (1 - momentum) * branch, rtol=1e-5, atol=1e-6)
        assert not learner.sums.any()


@needs_timm
def test_a_t_head_sees_no_token_in_front():
    """Of a transformer with a class token the places, and what its classifier would read is the class token."""
    name = "fresh:timm:test_vit,img_size=12,patch_size=4,dynamic_img_size=true"
    vit = load_model(name, num_classes=0, channels=1)
    method = Mokd(Backbones([vit, network("cnn-xs")]), {}, **SMALL, t_head=T_HEAD)
    method.fit_to([(1, 12, 12), (1, 8, 8)], torch.arange(6))
    assert method.maps == [False, True]
    branch = method.learners[0].branch
    said = branch(batch().crops)
    scores = []
    for crops, seen, places in zip(batch().crops, said.seen, (9, 4), strict=True):
        tokens = vit.body.forward_features(vit.prepare(crops.flatten(0, 1), size=tuple(crops.shape[-2:])))
        assert tokens.shape[1] == 1 + places
        torch.testing.assert_close(seen.tokens, tokens[:, 1:])
        torch.testing.assert_close(seen.features, tokens[:, 0])
        scores.append(t_scores(branch.t_head, tokens[:, 1:]).unflatten(0, (len(crops), -1)))
    torch.testing.assert_close(said.tokens, torch.cat(scores), rtol=1e-4, atol=1e-5)


def test_the_product_is_the_twin_whose_statistics_are_its_own():
    """Batch normalisation of the twin sees its own batches, of global crops alone, and does not follow the branch's."""
    method = build(names=("cnn-s", "vit-xs,patch=4"))
    method(batch(), CLOCK)
    twin, branch = method.learners[0].twin, method.learners[0].branch
    kept = {name: one.clone() for name, one in twin.named_buffers() if "running" in name}
    assert kept
    assert not any(torch.equal(one, branch.get_buffer(name)) for name, one in kept.items())
    method.after_step(CLOCK)
    assert all(torch.equal(one, twin.get_buffer(name)) for name, one in kept.items())
    products = method.products()["student"].members.values()
    assert all(one is learner.twin.network for one, learner in zip(products, method.learners, strict=True))


RUN = {
    "teacher": None,
    "epochs": 2,
    "batch_size": 40,
    "threads": 1,
    "log_every": 3,
    "view": {"locals": 2, "local_size": 8},
}
METHOD = {
    "outputs": 16, "mlp_head": {"hidden": 12, "bottleneck": 6}, "cnn_optimiser": {"lr": 0.01, "warmup_epochs": 0},
    "transformer_optimiser": {"lr": 0.003, "warmup_epochs": 0},
}  # fmt: skip
DINO = {"name": "dino", **METHOD}
MOKD = {"name": "mokd", "t_head": {"layers": 1, "heads": 2, "width": 8}, "t_head_optimiser": {"lr": 0.1}, **METHOD}
PAIR = ["fresh:zoo:cnn-s", "fresh:zoo:vit-m,patch=4"]


def test_two_runs_alone_are_a_run_of_both_to_the_last_bit(grey, tmp_path):
    """Dropout and stochastic depth of one do not shift those of the other."""
    neither = {**MOKD, "cross_weights": [0.0, 0.0], "t_head": None}
    pair = api.run({**RUN, "data": grey, "student": PAIR, "method": neither}, output=tmp_path / "pair")
    assert pair.numbers["taught_by"] == "its own slow twin"
    for number, name in enumerate(PAIR, start=1):
        api.run({**RUN, "data": grey, "student": name, "method": DINO}, output=tmp_path / f"one{number}")
        both, one = (
            load_file(tmp_path / "pair" / f"student{number}.safetensors"),
            load_file(tmp_path / f"one{number}" / "student.safetensors"),
        )
        assert both.keys() == one.keys()
        assert all(torch.equal(both[key], one[key]) for key in one)


def left(folder):
    files = sorted(folder.glob("student*.safetensors"))
    return (folder / "metrics.jsonl").read_bytes(), [
        (file.name, name, tensor.numpy().tobytes()) for file in files for name, tensor in load_file(file).items()
    ]


@pytest.mark.parametrize(("method", "student"), [(MOKD, PAIR), (MOKD, ["fresh:zoo:cnn-s"] * 2), (DINO, PAIR[1])])
def test_a_stopped_run_goes_on_to_the_last_bit(grey, after_step, tmp_path, method, student):
    recipe = {**RUN, "data": grey, "student": student, "method": method}
    api.run(recipe, output=tmp_path / "whole")
    after_step(8, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        api.run(recipe, output=tmp_path / "run")
    api.run(recipe, output=tmp_path / "run")
    assert left(tmp_path / "run") == left(tmp_path / "whole")


def test_a_checkpoint_without_a_part_of_the_methods_own_state_is_one_line(grey, after_step, tmp_path):
    """As an earlier version may have left it."""
    recipe = {**RUN, "data": grey, "student": PAIR[0], "method": DINO}
    after_step(8, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        api.run(recipe, output=tmp_path)
    newest = max((tmp_path / "checkpoints").glob("step-*.ckpt"))
    state = checkpoint.load(newest)
    del state["method"]["_extra_state"]["best"]
    checkpoint.save(newest.parent, state["step"], state)
    with pytest.raises(UserError, match=r"ckpt does not fit this method, .*'best'.* start anew with --fresh$"):
        api.run(recipe, output=tmp_path)


def test_products_go_on_as_any_network(grey, tmp_path):
    """Backbones, a linear classifier on one of them, and a transfer to the other."""
    run = api.run({**RUN, "data": grey, "student": PAIR, "method": MOKD}, output=tmp_path / "pair")
    assert run.numbers["taught_by"] == "its own slow twin and the other network's"
    networks = run.numbers["networks"]
    assert set(networks) == {"student1", "student2"}
    assert networks["student1"]["probe_after"] > 30
    both = [f"file:{tmp_path}/pair/student{number}.safetensors" for number in (1, 2)]
    (pair, _) = osmose.compare(both, data=grey, part="test")["pairs"]
    assert 0 < pair["agreement"] < 100
    assert run.numbers["agreement_after"] == pytest.approx(pair["agreement"])
    page = (tmp_path / "pair" / "report.html").read_text()
    losses, twins = (page.index(title) for title in ("each loss, without its weight", "what they tell, nats"))
    assert losses < page.index("cross1") < twins < page.index("twin/told2")
    steps = [line for line in map(json.loads, left(tmp_path / "pair")[0].splitlines()) if "loss" in line]
    for line in steps:
        assert 0 <= line["twin/told1"] <= math.log(MOKD["outputs"]) - line["twin/entropy1"] + 1e-4
    for role, found in networks.items():
        read = api.evaluate(f"file:{tmp_path}/pair/{role}.safetensors", data=grey)
        assert {key: value for key, value in read.items() if key.startswith(("neighbours", "probe"))} == {
            key.removesuffix("_after"): found[key]
            for key in ("neighbours_after", "neighbours_10_after", "neighbours_30_after", "probe_after")
        }
    probe = {"name": "supervised", "train": "head", "optimiser": {"lr": 0.5}}
    common = {"data": grey, "epochs": 2, "batch_size": 40, "threads": 1}
    for number, options in ((1, ""), (2, ",last_layers=2")):
        student = f"head:file:{tmp_path}/pair/student{number}.safetensors{options}"
        api.run({**common, "student": student, "method": probe}, output=tmp_path / f"probe{number}")
    assert api.evaluate(f"file:{tmp_path}/probe1", data=grey, features=True)["probe"] > 30
    with pytest.raises(UserError, match="leave --features out"):
        api.evaluate("file:x", data="text:x", features=True)
    few = api.evaluate(f"file:{tmp_path}/pair/student1.safetensors", data=grey, bank=60)
    assert few["neighbours"] != networks["student1"]["neighbours_after"]
    with pytest.raises(UserError, match="key 'bank' is 0: set it to at least 2"):
        api.evaluate(f"file:{tmp_path}/pair/student1.safetensors", data=grey, bank=0)
    moved = api.run(
        {
            **common,
            "student": f"file:{tmp_path}/probe1",
            "teacher": f"file:{tmp_path}/probe2",
            "method": {"target": "partition"},
        },
        output=tmp_path / "moved",
    )
    assert moved.numbers["taught_by"].endswith("probe2 (partition, weight 1)")
    with pytest.raises(UserError, match="student1.safetensors"):
        load_model(f"file:{tmp_path}/pair")


def test_stages_name_the_members(grey, tmp_path):
    stages = [
        {"name": "pair", "student": PAIR, "method": MOKD, **RUN},
        {"name": "probe", "student": "head:$pair/student2", "method": {"name": "supervised", "train": "head"}},
        {
            "name": "layers",
            "student": "head:$pair/student2,last_layers=2",
            "method": {"name": "supervised", "train": "head"},
        },
    ]
    result = api.run(
        {"data": grey, "epochs": 1, "batch_size": 40, "threads": 1, "stages": stages}, output=tmp_path / "run"
    )
    pair, probe, layers = (
        load_file(tmp_path / "run" / path)
        for path in ("pair/student2.safetensors", "probe/student.safetensors", "layers/student.safetensors")
    )
    assert all(torch.equal(probe[key], pair[key]) and torch.equal(layers[f"body.{key}"], pair[key]) for key in pair)
    assert all("accuracy_after" in result.numbers["stages"][stage] for stage in ("probe", "layers"))


def test_the_last_layers_wait_and_nothing_else_does(grey, tmp_path):
    method = build(still_epochs=2)
    players = method.players()
    assert set(players) == {"student1", "student1/last", "t-head1", "t-head1/last", "student2", "student2/last"}
    early = method.moving(CLOCK)
    assert set(early) == {"student1", "t-head1", "student2"}
    assert method.moving(Clock(step=4, steps_per_epoch=2, epochs=4, batch_size=6)) is None
    trained = [id(p) for player in players.values() for group in player.groups for p in group.parameters]
    assert len(trained) == len(set(trained))
    named = {id(p): name for name, p in method.named_parameters()}
    twins = {key for key, name in named.items() if ".twin." in name}
    assert not twins & set(trained)
    fixed = {key for key, name in named.items() if name == "student1.branch.mlp_head.last.length"}
    assert set(named) - twins - set(trained) == fixed  # a CNN's MLP-Head has prototypes of length 1
    last = {
        named[id(p)] for name in players if name.endswith("/last") for g in players[name].groups for p in g.parameters
    }
    assert all(".last." in name for name in last)
    recipe = {**RUN, "data": grey, "student": PAIR, "epochs": 1, "method": {**MOKD, "still_epochs": 1}}
    api.run(recipe, output=tmp_path / "run")
    state = checkpoint.newest(tmp_path / "run" / "checkpoints", print)["method"]
    fresh = resolve(recipe)
    task = execution.gather(fresh, {}, {})
    folder = RunFolder(tmp_path / "other", fresh.plain(), owner=False)
    begun = execution.prepare(fresh, task, folder, make_fabric(fresh), Progress(quiet=True)).method.state_dict()
    stood = {name for name in begun if ".branch." in name and torch.equal(begun[name], state[name])}
    assert {name for name in begun if ".branch." in name and ".last." in name} <= stood
    assert not any(name.endswith("layers.0.weight") for name in stood)


@pytest.mark.parametrize(
    ("name", "kind", "peak", "final", "decay", "final_decay"),
    [
        ("student1", torch.optim.SGD, 0.1, 0.0048, 1e-4, 1e-4),
        ("t-head1", torch.optim.SGD, 3e-4, 1e-5, 0.04, 0.4),
        ("student2", torch.optim.AdamW, 3e-4, 1e-5, 0.04, 0.4),
    ],
)
def test_optimisers_are_the_papers(name, kind, peak, final, decay, final_decay):
    """The table of spec 3.3, for a batch of 256 and 100 epochs; last layers have what the others of their player have."""
    method = build()

    def at(epoch, batch_size=256):
        return Clock(step=round(100 * epoch), steps_per_epoch=100, epochs=100, batch_size=batch_size)

    for player in (method.players()[name], method.players()[f"{name}/last"]):
        optimiser = player.optimiser([{"params": group.parameters} for group in player.groups])
        assert type(optimiser) is kind
        assert player.clip_each == 3.0
        assert player.clip is None
        if kind is torch.optim.SGD:
            assert {group["momentum"] for group in optimiser.param_groups} == {0.9}
        for group in player.groups:
            rates = [group.lr(at(epoch)) for epoch in (4.99, 10, 55, 100)]  # the first step has a rate too
            assert rates == pytest.approx([peak / 2, peak, (peak + final) / 2, final])
            assert group.lr(at(10, batch_size=512)) == pytest.approx(2 * peak)
            assert len({parameter.dim() <= 1 for parameter in group.parameters}) == 1
            if group.parameters[0].dim() <= 1:
                assert group.weight_decay == 0.0
            elif decay == final_decay:
                assert group.weight_decay == decay
            else:
                decays = [group.weight_decay(at(epoch)) for epoch in (0, 50, 100)]
                assert decays == pytest.approx([decay, (decay + final_decay) / 2, final_decay])


def test_heads_begin_as_the_papers():
    """DINO's MLP-Head and MOKD's T-Head: a normal of deviation 0.02, no bias, prototypes of length 1."""
    torch.manual_seed(0)
    mlp = MLPOutputs(MLPHead(), 384, 100, fixed=True)
    assert [tuple(layer.weight.shape) for layer in mlp.layers[::2]] == [(2048, 384), (2048, 2048), (256, 2048)]
    t_head = TOutputs(THead(), Layout.of(torch.zeros(1, 197, 384), front=1), 384, 100, project=True)
    assert t_head.positions.shape == (196, 384)
    assert [layer.self_attn.num_heads for layer in t_head.layers.layers] == [6, 6, 6]
    assert t_head.layers.layers[0].linear1.out_features == 4 * 384
    for head in (mlp, t_head):
        for name, parameter in head.named_parameters():
            if "last.direction" in name:
                assert 0.99 < parameter.abs().max() * parameter.shape[1] ** 0.5 <= 1
            elif "last.length" in name or ("norm" in name and name.endswith("weight")):
                assert (parameter == 1).all()
            elif name.endswith("bias"):
                assert not parameter.any()
            else:
                assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.02)


def test_widths_of_t_heads():
    """All have the widest transformer's, and 384 where there is none; six attention heads, or what divides it."""
    auto = {"t_head": THead(layers=1)}
    widths = {
        names: [learner.branch.t_head.positions.shape[1] for learner in build(names=names, **auto).learners]
        for names in (("cnn-xs", "vit-s,patch=4"), ("vit-xs,patch=4", "vit-s,patch=4"), ("cnn-xs", "cnn-s"))
    }
    wide = network("vit-s,patch=4").body.position.shape[-1]
    assert list(widths.values()) == [[wide] * 2, [wide] * 2, [384] * 2]
    for width, heads in ((384, 6), (768, 6), (192, 6), (64, 4), (100, 5), (49, 1)):
        head = TOutputs(THead(layers=1), Layout.of(torch.zeros(1, 9, 6)), width, 5, project=True)
        assert head.layers.layers[0].self_attn.num_heads == heads


@pytest.mark.parametrize("fixed", [False, True])
def test_prototypes_are_directions_with_lengths(fixed):
    last = Prototypes(6, 5, fixed=fixed).double()
    torch.nn.init.normal_(last.direction)
    x = torch.randn(4, 6, dtype=torch.float64)
    if not fixed:
        torch.nn.init.uniform_(last.length, 0.5, 2)
    rows = [last.direction[k] / last.direction[k].norm() * last.length[k] for k in range(5)]
    wanted = torch.stack([torch.stack([(one.float() * row.float()).sum() for row in rows]) for one in x])
    torch.testing.assert_close(last.float()(x), wanted, rtol=1e-5, atol=1e-6)
    assert last.length.requires_grad is not fixed


def test_dino_keeps_its_twins_answers_out_of_the_graph():
    method = moved(build(Dino))
    for parameter in method.parameters():
        parameter.requires_grad_(True)
    twins = [p for learner in method.learners for p in learner.twin.parameters()]
    assert all(one is None for one in torch.autograd.grad(method(batch(), CLOCK).loss, twins, allow_unused=True))


def test_temperatures_rise_and_stay():
    temperature = Temperature()
    at = {step: temperature.at(Clock(step=step, steps_per_epoch=10, epochs=100, batch_size=1), cnn=False) for step in
          (0, 150, 300, 900)}  # fmt: skip
    assert at == pytest.approx({0: 0.04, 150: 0.055, 300: 0.07, 900: 0.07})
    assert temperature.at(Clock(step=250, steps_per_epoch=10, epochs=100, batch_size=1), cnn=True) == pytest.approx(
        0.055
    )


def test_the_twin_has_no_dropout_and_its_own_batches():
    method = build(names=("cnn-s", "vit-m,patch=4"))
    modes = {type(m).__name__: m.training for learner in method.learners for m in learner.twin.network.modules()}
    assert modes["BatchNorm2d"]
    assert not modes["Dropout"]
    assert not modes["_DropPath"]
    assert all(m.training for learner in method.learners for m in learner.branch.modules())


def test_collapse_ends_the_run_with_its_reason(grey, tmp_path):
    """A twin whose answers become even tells nothing of its samples."""
    flat = {**DINO, "teacher_temperature": {"start": 0.04, "end": 1e6, "warmup_epochs": 2, "cnn_warmup_epochs": 2}}
    said = r"fresh:zoo:cnn-s collapsed: in epoch 2 .* nats\); lower method.teacher_temperature or the learning rate"
    with pytest.raises(UserError, match=said):
        api.run({**RUN, "data": grey, "student": PAIR[0], "method": flat}, output=tmp_path / "run")


def test_a_t_head_that_tells_nothing_ends_the_run(grey, tmp_path, monkeypatch):
    """Its twin's answers are made even after the first epoch, those of the MLP-Heads are not."""
    target = Learner.target
    begun = []

    def even(learner, head, raw, temperature):
        begun.append(head)
        late = begun.count("mlp") > 40  # in the second epoch or the third
        return target(
            learner,
            head,
            raw,
            1e9 if late and head == "tokens" and learner.name.startswith("fresh:zoo:cnn") else temperature,
        )

    monkeypatch.setattr(Learner, "target", even)
    with pytest.raises(
        UserError,
        match=r"the T-Head of fresh:zoo:cnn-\w+ collapsed: in epoch \d its twin .*; lower method.cross_weights, method.teach",
    ):
        api.run({**RUN, "data": grey, "student": PAIR, "epochs": 6, "method": MOKD}, output=tmp_path / "run")


def test_only_who_listens_is_told_to_listen_less():
    method = build(cross_weights=(0.0, 1.0))
    assert [method.unsteady(number) for number in (0, 1)] == [
        "method.teacher_temperature",
        "method.cross_weights, method.teacher_temperature",
    ]


@pytest.mark.parametrize(
    ("answers", "entropy", "told"),
    [
        ([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], 0.0, math.log(4)),  # each its own prototype
        ([[1, 0, 0, 0]] * 4, 0.0, 0.0),  # collapse onto one prototype
        ([[0.25] * 4] * 4, math.log(4), 0.0),  # collapse onto all alike
        ([[0.5, 0.5, 0, 0]] * 2 + [[0, 0, 0.5, 0.5]] * 2, math.log(2), math.log(2)),
    ],
)
def test_what_a_twin_told_is_the_information_of_its_answers_about_samples(answers, entropy, told):
    """Worked out by hand; two views of two samples, of which the views stand before the samples."""
    learner = build(outputs=4).learners[0]
    parts = learner.count({"mlp": torch.tensor(answers, dtype=torch.float32).unflatten(0, (2, 2))})
    assert {name: value.item() for name, value in parts.items()} == {
        "twin/entropy": pytest.approx(entropy, abs=1e-6),
        "twin/told": pytest.approx(told, abs=1e-6),
    }
    learner.gather("mlp", torch.zeros(2, 2, 4))
    assert learner.follow(1.0, 0.0).tolist() == pytest.approx([told, 0], abs=1e-6)


def test_a_step_of_single_samples_tells_as_much_as_one_of_all():
    """Each micro-batch tells nothing of its one sample, and the four together tell them apart."""
    learner = build(outputs=4).learners[0]
    for answer in torch.eye(4):
        parts = learner.count({"mlp": answer.view(1, 1, 4), "tokens": torch.full((1, 1, 4), 0.25)})
        assert parts["twin/told"] == 0
        learner.gather("mlp", torch.zeros(1, 1, 4))
    assert learner.follow(1.0, 0.0).tolist() == pytest.approx([math.log(4), 0], abs=1e-6)
    assert not learner.answers.any()
    assert not learner.counted.any()


def test_a_t_head_is_judged_after_its_own_warm_up():
    """That of a network with feature maps has an optimiser of its own."""
    short = replace(CNN, warmup_epochs=0)
    late = Clock(step=13, steps_per_epoch=2, epochs=10, batch_size=6)  # the end of epoch 7, and five are waited for
    for t_head, falls in ((replace(CNN, warmup_epochs=0), True), (replace(CNN, warmup_epochs=3), False)):
        method = build(
            cnn_optimiser=replace(CNN, warmup_epochs=9), transformer_optimiser=short, t_head_optimiser=t_head
        )
        told = dict.fromkeys(itertools.product(range(2), ("mlp", "tokens")), 1.0) | {(0, "tokens"): 0.0}
        method.best, method.told = [0.0] * 4, [[*told.values()]]
        with pytest.raises(UserError, match="the T-Head of .* learned nothing") if falls else nullcontext():
            method._require_answers(late)


def test_what_never_told_anything_is_no_collapse_at_once(grey, tmp_path):
    """Not for some epochs: the beginning may be slow."""
    flat = {**DINO, "teacher_temperature": {"start": 1e4, "end": 1e4}}
    recipe = {**RUN, "data": grey, "student": PAIR[0], "method": flat}
    api.run({**recipe, "epochs": 4}, output=tmp_path / "run")
    with pytest.raises(UserError, match="learned nothing: in epoch 5 .* as in all before; lower"):
        api.run({**recipe, "epochs": 6}, output=tmp_path / "longer")


def test_what_fades_from_hardly_anything_is_no_collapse():
    """A twin that never told what counts as an answer may fall to nothing by rounding, as on a GPU."""
    method = build()
    places = len(method.best)
    for best, falls in ((1e-6, False), (1.0, True)):
        method.best, method.told = [best] * places, [[0.0] * places]
        with pytest.raises(UserError, match="collapsed") if falls else nullcontext():
            method._require_answers(CLOCK)


def test_local_crops_that_a_network_cannot_take_are_resized():
    method = build(names=("cnn-xs", "mixer-s,patch=4"))
    assert [look.size for look in method.learners[0].branch.looks] == [(12, 12), (8, 8)]
    assert [look.size for look in method.learners[1].branch.looks] == [(12, 12), (12, 12)]
    (note,) = method.notes()
    assert not list(build(shapes=((1, 12, 12), (1, 12, 12))).notes())
    assert note.startswith(
        f"{method.learners[1].branch.network.name} does not take local crops of 8x8 as they are: they are enlarged to 12x12"
    )
    assert note.endswith("view.local_size 9"), "3 x 3 patches of 4, the last ones cut off"
    method(batch(), CLOCK)


@needs_timm
@pytest.mark.parametrize(("image", "local", "patch", "nearest"), [(32, 14, 4, 12), (96, 41, 8, 40), (96, 41, 16, 48)])
def test_the_side_of_local_crops_that_a_network_takes_is_named(image, local, patch, nearest):
    name = f"fresh:timm:test_vit,img_size={image},patch_size={patch},dynamic_img_size=true"
    local_size = Crops().sizes((image, image))[1]
    assert local_size == (local, local)
    shapes = ((1, image, image), (1, local, local))
    enlarged = looks(load_model(name, num_classes=0, channels=1), shapes)[1]
    assert (enlarged.size, enlarged.nearest) == ((image, image), nearest)
    for side, notes in ((local, 1), (nearest, 0)):
        method = Dino(Backbones([load_model(name, num_classes=0, channels=1)]), {}, **SMALL)
        method.fit_to([(1, image, image), (1, side, side)], torch.arange(6))
        assert len(method.notes()) == notes
        for note in method.notes():
            assert f"crops of {local}x{local} as they are" in note
            assert note.endswith(f"view.local_size {nearest}")
    fixed = load_model(name.replace("true", "false"), num_classes=0, channels=1)
    method = Dino(Backbones([fixed]), {}, **SMALL)
    method.fit_to(shapes, torch.arange(6))
    assert method.notes()[0].endswith("timm's transformers take smaller ones with dynamic_img_size=true")


def test_a_network_that_takes_one_size_only_has_no_nearest_side():
    (note,) = build(Dino, names=("mixer-s,patch=1",)).notes()
    assert note.endswith("; another network may take any size, as CNNs do")


def test_local_crops_larger_than_global_ones_are_noted():
    assert not build(Dino, names=("cnn-xs",), shapes=((1, 12, 12), (1, 12, 12))).notes()
    (note,) = build(Dino, names=("cnn-xs",), shapes=((1, 12, 12), (1, 16, 16))).notes()
    assert note == "local crops of 16x16 have more pixels than global ones of 12x12: lower view.local_size"


def test_a_dry_run_says_what_a_run_would_note_and_a_warm_up_that_does_not_end_is_noted(grey, capsys):
    recipe = {**RUN, "data": grey, "student": PAIR, "method": {**MOKD, "cnn_optimiser": {"warmup_epochs": 3}}}
    for epochs, noted in ((3, 1), (4, 0)):
        api.estimate({**recipe, "epochs": epochs}, quiet=False)
        said = capsys.readouterr().err
        note = "the learning rate of student1 rises for 3 epochs, and the run ends after 3: lower that"
        assert said.count(note) == noted
        assert "are read to evaluate, not to train" in said
    api.estimate({**recipe, "epochs": 3})
    assert capsys.readouterr().err == ""


def test_images_of_one_class_are_noted(tmp_path, capsys):
    from PIL import Image

    for part in ("train", "test"):
        (tmp_path / "photos" / part / "all").mkdir(parents=True)
        for number in range(20):
            Image.new("L", (12, 12), number).save(tmp_path / "photos" / part / "all" / f"{number}.png")
    recipe = {**RUN, "batch_size": 4, "student": PAIR[0], "method": DINO}
    for labelled, noted in ((True, 1), (False, 0)):
        data = {"name": f"imagefolder:{tmp_path / 'photos'}", "labelled": labelled}
        api.estimate({**recipe, "data": data}, quiet=False)
        assert capsys.readouterr().err.count("are of one class, so numbers read by labels say nothing") == noted


@needs_timm
def test_crops_keep_their_share_where_a_network_enlarges_images():
    """Global crops are seen as images are when the network is evaluated, local ones are enlarged by as much."""
    network = load_model("fresh:timm:test_vit,dynamic_img_size=true", num_classes=0, channels=1)
    (height, _), patch = network.preprocessing.size, network.body.patch_embed.patch_size[0]
    seen = looks(network, [(1, 30, 30), (1, 15, 15)])
    assert [look.size for look in seen] == [(height, height), (height // 2, height // 2)]
    side = height // patch
    assert [look.layout.grid for look in seen] == [(side, side), (side // 2, side // 2)]
    assert seen[0].layout.front == network.body.num_prefix_tokens == 1
    assert seen[0].width == network.body.num_features


def test_images_that_are_not_square():
    """6 local tokens are a grid of 3 x 2, not two tokens in front of 2 x 2."""
    pixels = torch.randint(0, 256, (4, 1, 24, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    crops = Crops(locals=2)(pixels, torch.arange(4), 0)
    networks = [
        load_model(f"fresh:zoo:{name}", num_classes=0, channels=1, image_size=(24, 16))
        for name in ("cnn-xs", "vit-xs,patch=4")
    ]
    method = Mokd(Backbones(networks), {}, **SMALL, t_head=T_HEAD)
    method.fit_to([(1, 24, 16), (1, 10, 7)], torch.arange(4))
    assert [look.layout.grid for look in method.learners[1].branch.looks] == [(6, 4), (3, 2)]
    assert [look.layout.front for look in method.learners[1].branch.looks] == [0, 0]
    assert method.train()(Batch(torch.arange(4), 0, crops[0][0], None, crops=crops), CLOCK).loss.isfinite()


@pytest.mark.parametrize(
    ("study", "runs"),
    [
        ("mokd-settings", 25),
        ("mokd-fashion", 24),
        ("mokd-terms", 21),
        ("mokd-cifar10", 21),
        ("mokd-imagenet", 12),
        ("mokd-cifar10-small", 30),
        ("mokd-cifar10-cnns", 5),
        ("mokd-probes", 36),
        ("mokd-transfer", 24),
    ],
)
def test_packaged_studies_are_whole(study, runs, monkeypatch, tmp_path):
    """Probes and transfers begin with what the studies before them leave."""
    (tmp_path / "cifar10").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(grid, "check_names", lambda recipes: None)
    for name in {"mokd-probes": ["mokd-fashion"], "mokd-transfer": ["mokd-probes"]}.get(study, []):
        for cell in grid.expand(grid.load(name)):
            (tmp_path / "results" / name / "runs" / cell.name).mkdir(parents=True)
    cells = grid.expand(grid.load(study))
    assert len(cells) == len({repr(cell.recipe) for cell in cells}) == runs
    models = [model for cell in cells for model in (cell.recipe.student, cell.recipe.teacher)]
    for path in {str(model).split("file:")[1] for model in models if "file:" in str(model)}:
        assert (tmp_path / path.partition("/student")[0]).is_dir(), path


def test_a_finished_stage_is_handed_back(grey, tmp_path):
    """Finished stages are read from their own files, whatever they began with."""
    stages = [
        {"name": "pre", "student": PAIR[0], "method": DINO},
        {"name": "pair", "student": ["head:$pre", PAIR[1]], "method": MOKD},
        {"name": "last", "student": "$pair/student1", "method": DINO},
    ]
    recipe = {**RUN, "data": grey, "epochs": 1, "stages": stages}
    api.run(recipe, output=tmp_path / "elsewhere" / "whole")
    api.run({**recipe, "stages": stages[:2]}, output=tmp_path / "two")
    again = api.run(recipe, output=tmp_path / "elsewhere" / "whole")
    assert set(again.numbers["stages"]) == {"pre", "pair", "last"}
    for name in ("pre/student", "pair/student1", "pair/student2"):  # folders do not matter
        one, two = (load_file(tmp_path / path / f"{name}.safetensors") for path in ("elsewhere/whole", "two"))
        assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(
    ("student", "said"),
    [
        ("$pair/student3", "give $pair/student1 or $pair/student2"),
        ("head:$pair", "'$pair' is no student of stage 'pair'"),
        ("$one/student2", "give $one or $one/student"),
    ],
)
def test_a_member_that_no_stage_makes_is_found_first(grey, tmp_path, student, said):
    stages = [
        {"name": "one", "student": PAIR[0], "method": DINO},
        {"name": "pair", "student": PAIR, "method": MOKD},
        {"name": "last", "student": student, "method": DINO},
    ]
    with pytest.raises(UserError, match=re.escape(said)):
        api.run({**RUN, "data": grey, "stages": stages}, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_networks_are_evaluated_at_the_size_of_their_global_crops(grey, tmp_path):
    """A CNN, which takes any size, a transformer, which is built for one, and a module of the user's."""
    students = [PAIR[0], "fresh:zoo:vit-m,patch=4", network("cnn-s").body]
    for number, student in enumerate(students):
        output = tmp_path / f"run{number}"
        given = {"data": grey, "student": student, "output": output, **RUN, "view": {"global_size": 8, "local_size": 4}}
        result = osmose.transfer(**given, method=DINO)
        assert result.student.body[0].preprocessing.size == (8, 8)
        again = osmose.transfer(**given, method=DINO)  # finished
        assert again.student.body[0].preprocessing.size == (8, 8)
        assert again.numbers["neighbours_after"] == result.numbers["neighbours_after"]
    small, large = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 12, 12)
    kept = load_model(f"file:{tmp_path / 'run0'}")
    assert kept(large).tokens.shape == kept(small).tokens.shape


def test_modules_learn_side_by_side_through_the_api(grey, tmp_path):
    modules = [network("cnn-s").body, network("vit-xs,patch=4").body]
    given = {"data": grey, "student": modules, "output": tmp_path / "run", **RUN, "method": MOKD}
    result = osmose.transfer(**given)
    assert set(result.numbers["networks"]) == {"student1", "student2"}
    again = osmose.transfer(**given)  # finished
    for role, one in again.student.members.items():
        assert all(
            torch.equal(a, b) for a, b in zip(one.parameters(), result.student.members[role].parameters(), strict=True)
        )


@pytest.mark.parametrize(
    ("family", "grid", "width", "is_map"),
    [("resnet18", (1, 1), 512, True), ("vit_b_16", (2, 2), 768, False), ("swin_t", (1, 1), 768, True)],
)
def test_plain_modules_of_torchvision_lose_their_head_and_show_their_last_layer(family, grid, width, is_map):
    """A Swin's map, whose channels come last, is one of places."""
    torchvision_ops.install()
    models = pytest.importorskip("torchvision.models", exc_type=ImportError)
    body = models.get_model(family, weights=None, **({"image_size": 32} if "vit" in family else {}))
    (look,) = looks(_headless(body, {}, channels=3), [(3, 32, 32)])
    assert (look.layout.grid, look.layout.width, look.width, look.is_map) == (grid, width, width, is_map)


class Sequences(torch.nn.Module):
    """A transformer whose layers take sequences first, or give two things."""

    num_classes = 0

    def __init__(self, two):
        super().__init__()
        self.patches, self.two = torch.nn.Conv2d(1, 8, 4, 4), two
        self.layers = torch.nn.ModuleList([torch.nn.TransformerEncoderLayer(8, 2, 8) for _ in range(2)])
        if two:
            self.layers[1].register_forward_hook(lambda layer, given, made: (made, made))

    def forward(self, x):
        x = self.patches(x).flatten(2).permute(2, 0, 1)
        for layer in self.layers:
            x = layer(x)
        return x[0][0] if self.two else x.mean(0)


@pytest.mark.parametrize("two", [False, True])
def test_layers_that_do_not_give_a_row_a_sample_are_refused(two):
    with pytest.raises(UserError, match="shows no feature map or tokens"):
        looks(_headless(Sequences(two), {}, channels=1), [(1, 12, 12)])


def test_twins_of_plain_modules_listen_to_their_own_layers():
    torchvision_ops.install()
    models = pytest.importorskip("torchvision.models", exc_type=ImportError)
    networks = [_headless(models.resnet18(weights=None), {}, channels=3) for _ in range(2)]
    method = Mokd(Backbones(networks), {}, **SMALL, t_head=T_HEAD)
    method.fit_to([(3, 64, 64), (3, 32, 32)], torch.arange(4))
    learner, other = method.train().learners
    for parameter in learner.twin.network.parameters():
        parameter.data.zero_()
    crops = [torch.rand(2, 4, 3, 64, 64)]
    assert not learner.twin(crops).seen[0].tokens.any()
    tokens = learner.branch(crops).seen[0].tokens
    wanted = torch.nn.Sequential(*list(networks[0].body.children())[:-2])(networks[0].prepare(crops[0].flatten(0, 1)))
    torch.testing.assert_close(tokens, wanted.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5)
    assert other.twin(crops).seen[0].tokens.any()


def test_bfloat16_leaves_scores_and_losses_wide():
    method = moved(build())
    plain = method(batch(), CLOCK)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = method(batch(), CLOCK)
        said = method.learners[0].branch(batch().crops)
        wide = [
            method.learners[0].branch.t_head._positions(look.layout).dtype for look in method.learners[0].branch.looks
        ]
    assert wide == [torch.float32] * 2, "of local crops too, whose positions are interpolated"
    assert said.seen[0].tokens.dtype == torch.bfloat16
    assert said.mlp.dtype == said.tokens.dtype == mixed.loss.dtype == torch.float32
    torch.testing.assert_close(mixed.loss, plain.loss, rtol=0.05, atol=0)


def test_a_study_of_pairs_has_a_row_for_each(grey, tmp_path):
    pairs = [PAIR, [PAIR[0]] * 2]
    study = {"base": {**RUN, "data": grey, "epochs": 1, "method": MOKD}, "students": pairs, "seeds": [0, 1]}
    found = osmose.study(study, output=tmp_path / "study")
    assert found["finished"] == 4
    rows = [row for row in found["summary"] if row["part"] == "test"]
    assert {row["networks"]: row["runs"] for row in rows} == {" + ".join(pair): 2 for pair in pairs}
    assert all(row["student2_probe_sd"] is not None for row in rows)
    assert (tmp_path / "study" / "report.html").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"student": PAIR[:1] * 3, "method": MOKD}, "method mokd takes two students, 3 given"),
        ({"student": PAIR[0], "method": MOKD}, "method mokd takes two students, 1 given"),
        ({"student": PAIR, "method": "distill", "view": {}}, "method distill trains one student, 2 given"),
        ({"student": PAIR, "method": {**MOKD, "t_head": {"heads": 7}}}, "cannot be shared by 7 attention heads"),
        (
            {"student": PAIR, "method": {**MOKD, "search": "code"}, "view": {"locals": 0}},
            "view.locals is 0, and method mokd as it is set asks by local crops: set",
        ),
        ({"student": PAIR, "method": MOKD, "view": {"crop": "shift"}}, "unknown key 'view.crop'"),
        ({"student": PAIR, "method": MOKD, "teacher": "zoo:cnn-s"}, "method mokd has no use for key 'teacher'"),
        ({"student": PAIR, "method": {**MOKD, "search": "code", "t_head": None}}, "there is nothing to ask"),
        ({"student": PAIR, "method": MOKD, "view": {"globals": 1}}, "view.globals is 1, and the method compares two"),
        (
            {"student": PAIR, "method": {**MOKD, "t_head": {"heads": 0}}},
            "key 'method.t_head.heads' is 0: set it to at least 1",
        ),
        (
            {"student": PAIR[0], "method": {**DINO, "transformer_optimiser": {"momentum": 0.5}}},
            "method.transformer_optimiser has a momentum",
        ),
        ({"student": PAIR, "method": MOKD, "blend": "mixup"}, "method mokd has no use for key 'blend'"),
        ({"student": PAIR[0], "method": {**DINO, "momentum": 2.0}}, "key 'method.momentum' is 2.0"),
        ({"student": PAIR[0], "method": DINO, "view": {"globals": 1, "locals": 0}}, "a crop needs another"),
        ({"student": PAIR[0], "method": DINO, "data": "cosine"}, "learns from images, and cosine has numbers"),
        ({"student": "resnet18", "method": DINO}, "unknown model 'resnet18': names begin with their source"),
        ({"student": PAIR, "method": {**MOKD, "name": "MOKD"}}, "unknown method 'MOKD': did you mean 'mokd'"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_written(grey, tmp_path, changes, said):
    with pytest.raises(UserError, match=said.replace(".", r"\.")) as error:
        api.run({**RUN, "data": grey, **changes}, output=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_networks_that_cannot_be_looked_at_are_refused():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 8))
    with pytest.raises(UserError, match="shows no feature map or tokens"):
        looks(load_model(module, channels=1), [(1, 12, 12)])

    class Picky(torch.nn.Sequential):
        def forward(self, x):
            raise RuntimeError("too small")

    with pytest.raises(UserError, match=r"fails on images of 12x12 pixels \(too small\): give larger images"):
        looks(load_model(Picky(torch.nn.Linear(2, 2)), channels=1), [(1, 12, 12)])


def test_without_labels_it_trains_and_nothing_is_scored(grey, tmp_path, capsys):
    recipe = {**RUN, "data": {"name": grey, "labelled": False}, "student": PAIR[0], "method": DINO}
    study = osmose.study({"base": {**recipe, "epochs": 1}, "seeds": [0]}, output=tmp_path / "study")
    assert (study["finished"], study["summary"]) == (1, [])
    numbers = api.run(recipe, output=tmp_path / "run").numbers
    assert numbers["networks"] == {}
    assert (tmp_path / "run" / "student.safetensors").exists()
    show_transfer(numbers, Console())
    out = capsys.readouterr().out
    assert "without labels nothing says how good the features are" in out
    page = (tmp_path / "run" / "report.html").read_text()
    assert "one run; without labels nothing says how good the features are" in page
    assert "test samples" not in out + page
