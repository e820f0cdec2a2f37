"""Interactive communication against its equations written out, and what it must leave alone."""

import copy
import os
import signal

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from osmose import api, grid
from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.engine.interrupt import Interrupted
from osmose.engine.optimiser import Optimiser
from osmose.errors import UserError
from osmose.methods.communication import Message
from osmose.methods.guided import Answers, mean_square
from osmose.methods.interactive import Interactive, Warmup
from osmose.models import load_model
from osmose.signals import Frozen

X = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % 4
CLOCK = Clock(step=0, steps_per_epoch=2, epochs=4, batch_size=6)


def network(name, seed):
    return load_model(f"fresh:zoo:{name}", num_classes=4, channels=1, image_size=(12, 12), seed=seed)


def build(student="vit-xs", teacher="vit-s", **settings):
    frozen = {"teacher1": Frozen(network(teacher, 1)), "initial": Frozen(network(student, 2))}
    torch.manual_seed(3)
    method = Interactive(network(student, 0), frozen, **{"message": Message(width=5), **settings})
    method.fit_to([(1, 12, 12)], torch.arange(6))
    return method, frozen["teacher1"].network


def batch():
    return Batch(torch.arange(6), 0, X, Y)


def speak(side, state):
    """The message of tokens [B, N, E], the encoder's layers one by one (both levels have the same width here)."""
    first, (act, second, norm) = side.first["low"], side.encoder
    return norm(second(act(first(state))))


def hear(side, message):
    first, act = side.decoder
    return side.last(act(first(message)))


def low_high(network):
    """The states of a ViT behind its first and its last layer, by its own modules."""
    body = network.body
    low = body.layers[0](body.patches(network.prepare(X)) + body.position)
    return low, body.layers[1:](low)


def relative(found, state):
    return ((found - state) ** 2).mean() / (state**2).mean()


def test_a_warm_up_as_long_as_the_run_is_refused():
    method, _ = build(warmup=Warmup(student=4, communicators=4))
    with pytest.raises(
        UserError, match="method.warmup takes 4 and 4 steps, and the run has 8: leave some in which both train"
    ):
        method.moving(CLOCK)


def test_bfloat16_compares_states_of_one_type():
    method, _ = build(rounds=2)
    plain = method(batch(), CLOCK).loss
    seen = []
    part = method.student_part
    method.student_part = lambda state: (seen.append(state.dtype), part(state))[1]
    with torch.autocast("cpu", torch.bfloat16):
        step = method(batch(), CLOCK)
    low = method.student.tried((1, 12, 12)).states["layers.0"].dtype
    assert seen == [low, low] == [torch.float32] * 2
    torch.testing.assert_close(step.loss, plain, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("rounds", [0, 1, 3])
@pytest.mark.parametrize(
    ("speak_from", "stop_gradient"), [("low", True), ("high", True), ("low", False), ("high", False)]
)
def test_the_loss_is_its_equations_written_out(rounds, speak_from, stop_gradient):
    weights = {"interact_weight": 2.0, "message_weight": 3.0, "state_weight": 5.0, "stop_gradient": stop_gradient}
    method, teacher = build(rounds=rounds, speak_from=speak_from, answers=Answers(labels=0.5), **weights)

    def compared(state):
        return state.detach() if stop_gradient else state

    (s_g, t_g), (s_h, t_h) = low_high(method.student), low_high(teacher)
    g, h = method.student_side, method.teacher_side
    interact, u = 0.0, s_g if speak_from == "low" else t_g
    for _ in range(rounds):
        interpreted = teacher.body.layers[1:](hear(h, speak(g, u)))
        u = method.student.body.layers[1:](hear(g, speak(h, interpreted)))
        interact = interact + relative(u, compared(t_g))
    same = ((speak(g, s_g) - speak(h, s_h)) ** 2).mean() + ((speak(g, t_g) - speak(h, t_h)) ** 2).mean()
    own = sum(
        relative(hear(side, message), compared(state))
        for side, state in ((g, s_g), (h, s_h))
        for message in (speak(g, s_g), speak(h, s_h))
    )
    expected = 0.5 * F.cross_entropy(method.student(X).logits, Y) + 2 * interact + 3 * same + 5 * own
    step = method(batch(), CLOCK)
    torch.testing.assert_close(step.loss, expected)
    trained = list(method.parameters())
    ours, plain = (torch.autograd.grad(loss, trained, allow_unused=True) for loss in (step.loss, expected))
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert ("interact" in step.parts) == (rounds > 0)  # none leaves the consistency losses alone


class Plain:
    """A network of the zoo as two parts, with its states as tokens of a grid, by its own modules."""

    def __init__(self, network):
        body = network.body
        self.vit = hasattr(body, "patches")
        residual = hasattr(body, "blocks")
        self.begin = (
            (lambda x: body.patches(x) + body.position) if self.vit else body.stem if residual else nn.Identity()
        )
        self.prepare, self.layers = network.prepare, body.blocks if residual else body.layers
        self.first_act = F.relu if residual else nn.Identity()
        self.act = nn.Identity() if self.vit or residual else F.relu  # a plain CNN's stand between its layers

    def low(self, x):
        return self.layers[0](self.first_act(self.begin(self.prepare(x))))

    def high(self, state):
        for layer in self.layers[1:]:
            state = layer(self.act(state))
        return state

    def tokens(self, state):
        return state if self.vit else state.flatten(2).mT

    def state(self, tokens, side):
        return tokens if self.vit else tokens.mT.unflatten(2, (side, side))


def resized(tokens, side):
    """Tokens of a square grid, on another one: means of the places that a new one covers, or interpolated."""
    here = round(tokens.shape[1] ** 0.5)
    grid = tokens.mT.unflatten(2, (here, here))
    if side > here:
        return F.interpolate(grid, (side, side), mode="bilinear").flatten(2).mT
    return F.adaptive_avg_pool2d(grid, side).flatten(2).mT


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize(("student", "teacher"), [("cnn-s", "vit-s"), ("vit-s", "resnet-s"), ("resnet-s", "cnn-s")])
def test_the_loss_between_families_is_its_equations_written_out(student, teacher, joint):
    """Feature maps and tokens, levels of other widths and grids, and a student that normalises by the batch."""
    weights = {
        "interact_weight": 2.0,
        "message_weight": 3.0,
        "state_weight": 5.0,
        "message": Message(width=5, joint=joint),
    }
    method, taught_by = build(student, teacher, rounds=2, answers=Answers(labels=0.5), **weights)
    method.train()
    nets = {"g": Plain(copy.deepcopy(method.student)), "h": Plain(copy.deepcopy(taught_by).eval())}
    sides = {"g": method.student_side, "h": method.teacher_side}
    low = {who: net.low(X) for who, net in nets.items()}
    high = {who: net.high(low[who]) for who, net in nets.items()}
    grids = {who: [round(nets[who].tokens(s).shape[1] ** 0.5) for s in (low[who], high[who])] for who in nets}
    assert grids["g"] != grids["h"]
    common = min(map(min, grids.values()))

    def speak(who, state, level):
        act, second, norm = sides[who].encoder
        tokens = nets[who].tokens(state)
        first = sides[who].first[level]
        return norm(second(act(resized(F.linear(tokens, first.weight, first.bias), common))))

    def hear(who, message):
        first, act = sides[who].decoder
        return nets[who].state(resized(sides[who].last(act(first(message))), grids[who][0]), grids[who][0])

    question, interact = speak("g", high["g"], "high"), 0.0
    for _ in range(2):
        answer = speak("h", nets["h"].high(hear("h", question)), "high")
        made = nets["g"].high(hear("g", answer))
        interact = interact + relative(made, high["g"])
        question = speak("g", made, "high")
    levels = (("low", low), ("high", high))
    same = sum(((speak("g", of["g"], level) - speak("h", of["h"], level)) ** 2).mean() for level, of in levels)
    messages = [speak(who, low[who], "low") for who in nets]
    own = sum(relative(hear(who, message), low[who]) for who in nets for message in messages)
    labels = F.cross_entropy(copy.deepcopy(method.student)(X).logits, Y)
    step = method(batch(), CLOCK)
    torch.testing.assert_close(step.parts["interact"], interact.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(step.loss, 0.5 * labels + 2 * interact + 3 * same + 5 * own, rtol=1e-4, atol=1e-5)
    step.loss.backward()
    communicators = [one for side in sides.values() for one in side.parameters()]
    given = [one.grad.clone() for one in communicators]
    expected = torch.autograd.grad(2 * interact + 3 * same + 5 * own, communicators)
    for ours, plain in zip(given, expected, strict=True):
        assert (ours - plain).norm() < 1e-4 * plain.norm()


@pytest.mark.parametrize("interact_on", ["high", "low", "messages"])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_what_a_round_is_compared_by(interact_on, stop_gradient):
    alone = {"interact_weight": 1.0, "message_weight": 0.0, "state_weight": 0.0, "answers": Answers(labels=0.0)}
    method, teacher = build(interact_on=interact_on, stop_gradient=stop_gradient, relative=False, **alone)
    g, h = method.student_side, method.teacher_side
    s_g, t_g = low_high(method.student)
    question = speak(g, t_g)
    answer = speak(h, teacher.body.layers[1:](hear(h, question)))
    back = hear(g, answer)
    found, own = {
        "high": (method.student.body.layers[1:](back), t_g),
        "low": (back, s_g),
        "messages": (answer, question),
    }[interact_on]
    expected = ((found - (own.detach() if stop_gradient else own)) ** 2).mean()
    loss = method(batch(), CLOCK).loss
    torch.testing.assert_close(loss, expected)
    parameters = list(method.parameters())
    for ours, plain in zip(
        torch.autograd.grad(loss, parameters, allow_unused=True),
        torch.autograd.grad(expected, parameters, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_whether_own_states_are_fixed_where_messages_are_heard_as_them(stop_gradient):
    alone = {"interact_weight": 0.0, "message_weight": 0.0, "state_weight": 1.0, "answers": Answers(labels=0.0)}
    method, teacher = build(stop_gradient=stop_gradient, **alone)
    (s_g, _), (s_h, _) = low_high(method.student), low_high(teacher)
    g, h = method.student_side, method.teacher_side
    expected = sum(
        relative(hear(side, message), state.detach() if stop_gradient else state)
        for side, state in ((g, s_g), (h, s_h))
        for message in (speak(g, s_g), speak(h, s_h))
    )
    loss = method(batch(), CLOCK).loss
    torch.testing.assert_close(loss, expected)
    parameters = list(method.parameters())
    found, plain = (torch.autograd.grad(one, parameters, allow_unused=True) for one in (loss, expected))
    for ours, other in zip(found, plain, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-6)


def test_a_relative_error_does_not_shrink_states():
    """It stays what it is when both states are scaled, so that its derivative by the scale is 0."""
    found, own = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scale = torch.ones((), requires_grad=True)
    error = mean_square(scale * found, scale * own, relative=True)
    assert torch.autograd.grad(error, scale)[0].abs() < 1e-6
    assert error.item() == pytest.approx(((found - own) ** 2).sum().item() / (own**2).sum().item())


def test_without_rounds_nothing_is_cut():
    """Layers at which a network cannot be cut are as good as any."""
    method, _ = build(rounds=0, student_low="layers.0.norm1")
    assert set(method(batch(), CLOCK).parts) == {"labels", "messages", "states", "messages/spread"}
    with pytest.raises(UserError, match=r"method.noise is 0.1 and the teacher hears nothing: set method.rounds"):
        build(rounds=0, noise=0.1)


def test_gradients_pass_the_frozen_teacher_into_both_sides():
    method, teacher = build(message_weight=0.0, state_weight=0.0, answers=Answers(labels=0.0))
    before = copy.deepcopy(teacher.state_dict())
    method(batch(), CLOCK).loss.backward()
    for side in (method.student_side, method.teacher_side):
        assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in side.parameters())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in teacher.parameters())
    owned = {id(one) for player in method.players().values() for group in player.groups for one in group.parameters}
    assert owned.isdisjoint(map(id, teacher.parameters()))
    assert owned == set(map(id, method.parameters()))
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_noise_is_added_to_what_the_teacher_hears():
    """Of a stream of its own in each round, in the equations written out."""
    method, teacher = build(noise=0.5, rounds=2, relative=False, message_weight=0.0, state_weight=0.0)
    g, h = method.student_side, method.teacher_side
    _, t_g = low_high(method.student)
    interact, u = 0.0, t_g
    for number in (1, 2):
        heard = hear(h, speak(g, u))
        with CLOCK.stream(f"interactive/noise/{number}"):
            heard = heard + 0.5 * torch.randn_like(heard)
        u = method.student.body.layers[1:](hear(g, speak(h, teacher.body.layers[1:](heard))))
        interact = interact + ((u - t_g) ** 2).mean()
    torch.testing.assert_close(method(batch(), CLOCK).parts["interact"], interact.detach())


def test_noise_leaves_the_students_dropout_alone():
    """A deviation of almost nothing gives almost what none gives."""
    losses = []
    for noise in (0.0, 1e-6):
        method, _ = build(noise=noise)
        method.student.body.layers[1].register_forward_hook(lambda layer, given, made: F.dropout(made, 0.5))
        torch.manual_seed(5)
        losses.append(method(batch(), CLOCK).parts["interact"])
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)


def test_noise_is_that_of_the_clock():
    method, _ = build(noise=0.5)
    losses = [method(batch(), clock).parts["interact"] for clock in (CLOCK, CLOCK, Clock(**{**vars(CLOCK), "step": 1}))]
    assert losses[0] == losses[1] != losses[2]
    quiet, _ = build()
    assert quiet(batch(), CLOCK).parts["interact"] not in losses


@pytest.mark.parametrize(("student", "teacher"), [("cnn-s", "vit-s"), ("vit-s", "resnet-s"), ("mixer-s", "cnn-xs")])
def test_any_two_families_communicate(student, teacher):
    method, _ = build(student, teacher, rounds=2)
    method.train()
    running = {name: one.clone() for name, one in method.student.named_buffers() if "running" in name}
    plain = copy.deepcopy(method.student)
    step = method(batch(), CLOCK)
    assert step.loss.isfinite()
    step.loss.backward()
    assert all(one.grad is not None for one in method.student_side.parameters())
    plain(X)
    for name in running:  # what it hears does not count as images that it saw
        torch.testing.assert_close(method.student.get_buffer(name), plain.get_buffer(name))


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_encoders_and_decoders_have_the_layers_that_were_asked_for(depth, norm, shared):
    method, _ = build(message=Message(width=5, depth=depth, norm=norm, shared=shared))
    side = method.student_side
    linear = {name: layer for name, layer in side.named_modules() if isinstance(layer, nn.Linear)}
    width = method.student.tried((1, 12, 12)).states["layers.0"].shape[-1]
    states = {level: torch.randn(6, 16, width) for level in ("low", "high")}
    said = side.speak(states)
    for level, state in states.items():
        message = linear[f"first.{level}" if not shared and level == "high" else "first.low"](state)
        for number in range(depth):
            message = linear[f"encoder.{2 * number + 1}"](F.gelu(message))
        message = F.layer_norm(message, (5,)) if norm else message
        torch.testing.assert_close(said[level], message)
    heard = said["low"]
    for number in range(depth):
        heard = F.gelu(linear[f"decoder.{2 * number}"](heard))
    torch.testing.assert_close(side.hear({"it": said["low"]})["it"], linear["last"](heard))
    assert len(linear) == 2 * depth + (2 if shared else 3)


def test_what_of_the_teacher_nobody_compares_is_not_asked_for():
    whole, _ = build()
    low = whole.teacher_fields[0]
    assert whole.reads() == {"teacher1": tuple(whole.teacher_fields)}
    states, _ = build(message_weight=0.0)
    assert states.reads() == {"teacher1": (low,)}
    rounds, _ = build(message_weight=0.0, state_weight=0.0)
    assert rounds.reads() == {}
    silent, _ = build(message_weight=0.0, state_weight=0.0, interact_weight=0.0)
    torch.testing.assert_close(silent(batch(), CLOCK).loss, F.cross_entropy(silent.student(X).logits, Y))
    parts = whole(batch(), CLOCK).parts
    for method, names in ((states, {"labels", "interact", "states"}), (rounds, {"labels", "interact"})):
        found = method(batch(), CLOCK).parts
        assert found.keys() == names | {"messages/spread"}
        for name in names:
            torch.testing.assert_close(found[name], parts[name])


def test_the_spread_of_messages_tells_whether_samples_are_told_alike():
    method, _ = build(student_low="layers.0", student_high="layers.1")
    (s_g, t_g), side = low_high(method.student), method.student_side
    shares = [((one - one.mean(0)) ** 2).mean() / (one**2).mean() for one in (speak(side, s_g), speak(side, t_g))]
    torch.testing.assert_close(method(batch(), CLOCK).parts["messages/spread"], torch.stack(shares).mean())
    alike = Batch(torch.arange(6), 0, X[:1].expand(6, -1, -1, -1), Y)
    assert method(alike, CLOCK).parts["messages/spread"] < 1e-6


def test_a_partition_may_teach_beside_messages():
    answers = Answers(labels=0.0, kl=1.0, target="partition", temperature=2.0)
    frozen = {"teacher1": Frozen(network("vit-s", 1)), "initial": Frozen(network("vit-xs", 2))}
    method = Interactive(network("vit-xs", 0), frozen, message=Message(width=5), answers=answers)
    method.fit_to([(1, 12, 12)], torch.arange(6))
    student, teacher, initial = (
        one(X).logits.detach() for one in (method.student, frozen["teacher1"].network, frozen["initial"].network)
    )
    rows = torch.arange(6)
    nearer = teacher.softmax(-1)[rows, Y] > initial.softmax(-1)[rows, Y]
    assert 0 < nearer.sum() < 6
    taught = torch.where(nearer[:, None], teacher, initial)
    kl = 4 * F.kl_div((student / 2).log_softmax(-1), (taught / 2).softmax(-1), reduction="batchmean")
    torch.testing.assert_close(method(batch(), CLOCK).parts["kl"], kl)


def test_a_teacher_in_bfloat16_interprets_in_it():
    method, teacher = build()
    method.teacher.mixed = True
    heard = torch.randn(6, 16, teacher.tried((1, 12, 12)).states["layers.0"].shape[-1], requires_grad=True)
    found, wide = method._interpreted(heard), teacher.body.layers[1:](heard)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = teacher.body.layers[1:](heard)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, narrow.float())
    assert 1e-4 < (found - wide).abs().max() < 0.1
    found.sum().backward()
    assert heard.grad.abs().sum() > 0


def test_encoders_of_levels_with_other_widths_have_another_first_layer():
    method, _ = build("cnn-xs", "vit-xs")
    assert method.student_side.first["low"] is not method.student_side.first["high"]
    assert method.teacher_side.first["low"] is method.teacher_side.first["high"]
    apart, _ = build("cnn-xs", "vit-xs", message=Message(width=5, shared=False))
    assert apart.teacher_side.first["low"] is not apart.teacher_side.first["high"]


def test_joint_messages_are_said_and_heard_by_the_same_layers():
    """But for those that meet a network's own widths; and each of them trains once."""
    method, _ = build("cnn-s", "vit-s", message=Message(width=5, joint=True))
    ours, theirs = method.student_side, method.teacher_side
    assert (ours.encoder, ours.decoder) == (theirs.encoder, theirs.decoder)
    assert ours.last is not theirs.last
    assert ours.first is not theirs.first
    (group, *_) = method.players()["communicators"].groups
    trained = [id(one) for one in group.parameters]
    assert len(trained) == len(set(trained))
    apart, _ = build("cnn-s", "vit-s", message=Message(width=5))
    assert apart.student_side.encoder is not apart.teacher_side.encoder


def test_the_warm_up_says_who_moves():
    method, _ = build(warmup=Warmup(student=2, communicators=3))
    moving = [method.moving(Clock(**{**vars(CLOCK), "step": step})) for step in range(6)]
    assert moving == [("student",)] * 2 + [("communicators",)] * 3 + [None]
    assert set(method(batch(), CLOCK).parts) == {"labels"}
    without_answers = set(method(batch(), Clock(**{**vars(CLOCK), "step": 2})).parts)
    assert without_answers == {"interact", "messages", "states", "messages/spread"}


@pytest.mark.parametrize(
    ("study", "runs"),
    [
        ("interactive-vit-fashion", 33),
        ("interactive-zoo", 36),
        ("interactive-vit-cifar10-small", 33),
        ("interactive-vit-few", 60),
    ],
)
def test_packaged_studies_are_whole(study, runs, monkeypatch, tmp_path):
    for folder in ("cifar10", "runs"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    trained = load_model("fresh:zoo:vit-m", num_classes=10, channels=3, image_size=(32, 32))
    trained.save(tmp_path / "runs" / "cifar10-vit")
    cells = grid.expand(grid.load(study))
    assert len(cells) == runs
    seeds = {cell.recipe.seed for cell in cells}
    assert seeds >= {0, 1, 2}
    sections = {cell.name.rsplit("-seed", 1)[0]: repr((cell.recipe.method, cell.recipe.teacher)) for cell in cells}
    assert len(set(sections.values())) == len(cells) / len(seeds) / (2 if study == "interactive-zoo" else 1)


RUN = {"student": "fresh:zoo:vit-xs", "teacher": "fresh:zoo:cnn-xs", "epochs": 2, "batch_size": 40, "threads": 1}


def test_only_encoders_and_decoders_move_in_their_steps(execute, tmp_path):
    """The student's weights, running statistics and counts stay what they are to the last bit, and so does the teacher."""
    method = {"name": "interactive", "warmup": {"student": 2, "communicators": 9}, "optimiser": {"lr": 0.05}}
    settings = {"method": method, "student": "fresh:zoo:cnn-s", "teacher": "fresh:zoo:resnet-s", "checkpoint_every": 4}
    seen = {}

    def keep(self, clock):
        if clock.step in (1, 10):
            seen[clock.step] = {name: value.clone() for name, value in self.state_dict().items()}
        digest["after"] = self.teacher.network.digest()

    def before(self, shapes, numbers, fit=Interactive.fit_to):
        digest["before"] = self.teacher.network.digest()
        fit(self, shapes, numbers)

    digest = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Interactive, "after_step", keep)
        patch.setattr(Interactive, "fit_to", before)
        execute(tmp_path / "run", **settings)
    moved = {name for name, value in seen[1].items() if not torch.equal(value, seen[10][name])}
    assert moved
    assert all(name.startswith(("student_side.", "teacher_side.")) for name in moved)
    assert digest["before"] == digest["after"]


def test_a_warm_up_as_long_as_the_run_leaves_no_folder(execute, tmp_path):
    with pytest.raises(UserError, match="method.warmup takes 90 and 0 steps, and the run has"):
        execute(tmp_path / "run", student="fresh:zoo:vit-xs", method={"name": "interactive", "warmup": {"student": 90}})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("at", [3, 9, 12])
def test_a_killed_run_goes_on_to_the_same_bits(at, execute, left, after_step, tmp_path):
    """While the student alone moves, while the communicators do, and after."""
    method = {
        "name": "interactive",
        "warmup": {"student": 6, "communicators": 4},
        "noise": 0.1,
        "optimiser": {"lr": 0.01},
    }
    settings = {"method": method, "student": "fresh:zoo:vit-xs"}
    execute(tmp_path / "whole", **settings)
    after_step(at, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        execute(tmp_path / "run", **settings)
    execute(tmp_path / "run", **settings)
    assert left(tmp_path / "run") == left(tmp_path / "whole")


@pytest.mark.parametrize("name", ["interactive", "fitnet", "feature", "attention", "relational"])
def test_states_from_a_store_change_nothing(name, grey, tmp_path, monkeypatch):
    settings = {**RUN, "data": grey, "method": {"name": name, "optimiser": {"lr": 0.01}}}
    live = api.transfer(output=tmp_path / "live", **settings)
    asked = []
    monkeypatch.setattr(
        Frozen, "__call__", lambda self, x, call=Frozen.__call__: (asked.append(len(x)), call(self, x))[1]
    )
    for folder in ("fills", "reads"):
        asked.clear()
        stored = api.transfer(output=tmp_path / folder, signals={"store": str(tmp_path / "store")}, **settings)
        for key, tensor in load_file(live.folder / "student.safetensors").items():
            assert torch.equal(tensor, load_file(stored.folder / "student.safetensors")[key])
        assert bool(asked) == (folder == "fills")


def test_the_product_is_a_plain_network(grey, tmp_path):
    result = api.transfer(output=tmp_path / "run", data=grey, method="interactive", **RUN)
    loaded = load_model(f"file:{tmp_path / 'run'}")
    names = set(load_file(tmp_path / "run" / "student.safetensors"))
    assert names == set(network("vit-xs", 0).body.state_dict())
    x = torch.rand(2, 1, 12, 12)
    assert torch.equal(loaded.eval()(x).logits, result.student.eval()(x).logits)


class Other(nn.Module):
    """A teacher of nine classes, or of none."""

    def __init__(self, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 6, 3, 2), nn.Conv2d(6, 8, 3, 2))
        if classes:
            self.head = nn.Linear(8, classes)

    def forward(self, x):
        x = self.layers(x)
        return self.head(x.mean((2, 3))) if hasattr(self, "head") else x


@pytest.mark.parametrize("classes", [9, 0])
@pytest.mark.parametrize("method", ["interactive", "feature"])
def test_a_teacher_with_other_classes_or_none_is_welcome(method, classes, grey, tmp_path):
    torch.manual_seed(0)
    settings = {**RUN, "teacher": Other(classes), "data": grey, "output": tmp_path / "run"}
    numbers = api.transfer(method={"name": method, "optimiser": {"lr": 0.01}}, **settings).numbers
    assert numbers["accuracy_after"] > 0
    assert not any(
        "teacher" in key or "flips" in key for key in numbers if key not in ("teacher", "cost")
    )  # its answers mean nothing
    with pytest.raises(UserError, match=f"knows {classes} classes"):
        api.transfer(method="distill", **{**settings, "output": tmp_path / "other"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": -1}, "key 'method.rounds' is -1: set it to at least 0"),
        ({"noise": -0.1}, "key 'method.noise' is -0.1: set it to a number of at least 0"),
        (
            {"teacher_low": "layers.1", "teacher_high": "layers.0"},
            "layer 'layers.0' of 'fresh:zoo:vit-s' does not come behind",
        ),
        (
            {"interact_weight": 0.0, "message_weight": 0.0, "state_weight": 0.0, "answers": Answers(labels=0.0)},
            "and .state_weight are 0, so that there is nothing to learn: give one of them a weight",
        ),
        ({"warmup": Warmup(student=2), "answers": Answers(labels=0.0)}, "method.answers.labels and .kl are 0"),
        (
            {"warmup": Warmup(communicators=2), "optimiser": Optimiser(schedule="plateau")},
            "schedule plateau would end the run",
        ),
        ({"student_low": "layers.0.norm1"}, "'fresh:zoo:vit-xs' cannot be cut at layer 'layers.0.norm1'"),
        ({"student": "mlp-xs"}, "'fresh:zoo:mlp-xs' does not say which of its layers follow one another"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(UserError) as caught:
        build(**settings)
    assert message in str(caught.value)


def test_settings_of_messages_and_warm_up_are_checked():
    for make, message in (
        (lambda: Message(width=0, norm=False), "key 'method.message.width' is 0: set it to at least 1"),
        (lambda: Message(width=1), "key 'method.message.width' is 1: set it to at least 2"),
        (lambda: Message(depth=-1), "key 'method.message.depth' is -1: set it to at least 0"),
        (lambda: Warmup(student=-1), "key 'method.warmup.student' is -1: set it to at least 0"),
        (
            lambda: Answers(target="partition"),
            "method.answers.target is 'partition' and method.answers.kl is 0: give it a weight",
        ),
        (lambda: Answers(target="tacher"), "unknown target 'tacher': did you mean 'teacher'"),
    ):
        with pytest.raises(UserError, match=message):
            make()
