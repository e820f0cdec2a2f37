"""The distillation loss against the paper's equations, and what trains when."""

import copy

import pytest
import torch
import torch.nn.functional as F

from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.engine.optimiser import Optimiser
from osmose.errors import UserError
from osmose.methods.distill import Distill
from osmose.models import load_model
from osmose.signals import Frozen
from osmose.targets import FlipRule

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(24, 1, 12, 12, generator=GENERATOR)
Y = torch.arange(24) % 4
CLOCK = Clock(step=0, steps_per_epoch=2, epochs=4, batch_size=24)


def network(name, seed=0):
    return load_model(f"fresh:zoo:{name}", num_classes=4, channels=1, image_size=(12, 12), seed=seed)


def batch(labels=Y):
    return Batch(torch.arange(24), 0, X, labels)


def build(student=None, *, teachers=("cnn-xs",), initial=None, **settings):
    student = student or network("mlp-xs", seed=5)
    frozen = {f"teacher{n}": Frozen(network(name, seed=n)) for n, name in enumerate(teachers, start=1)}
    frozen["initial"] = Frozen(initial or network("mlp-xs", seed=9))
    return Distill(student, frozen, **settings), frozen


def logits(method, frozen):
    with torch.no_grad():
        return method.student(X).logits, *(net(X).logits for net in frozen.values())


def kl(student, target, temperature=1.0):
    p = (target / temperature).softmax(-1)
    q = (student / temperature).softmax(-1)
    return temperature**2 * (p * (p / q).log()).sum(-1)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kl_distillation(temperature):
    method, frozen = build(temperature=temperature)
    student, teacher, _ = logits(method, frozen)
    step = method(batch(), CLOCK)
    torch.testing.assert_close(step.loss.detach(), kl(student, teacher, temperature).mean())
    assert {name: part.item() for name, part in step.parts.items()} == {
        "kl": step.loss.item(), "share/initial": 0.0, "share/teacher1": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("weight", [0.0, 0.3])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_xe_kl_is_weighted_by_lambda(weight, smoothing):
    method, frozen = build(kl_weight=weight, smoothing=smoothing)
    student, teacher, _ = logits(method, frozen)
    smooth = (1 - smoothing) * F.one_hot(Y, 4) + smoothing / 4
    xe = -(smooth * student.log_softmax(-1)).sum(-1).mean()
    step = method(batch(), CLOCK)
    torch.testing.assert_close(step.loss.detach(), weight * kl(student, teacher).mean() + (1 - weight) * xe)
    torch.testing.assert_close(step.parts["cross_entropy"], xe)


def test_the_public_codes_cross_entropy_takes_the_softmax_twice():
    method, frozen = build(kl_weight=0.0, cross_entropy_on="probabilities")
    student, *_ = logits(method, frozen)
    expected = -student.softmax(-1).log_softmax(-1)[torch.arange(24), Y].mean()
    torch.testing.assert_close(method(batch(), CLOCK).loss.detach(), expected)


def test_soft_cross_entropy_and_top_k():
    method, frozen = build(loss="soft-cross-entropy")
    student, teacher, _ = logits(method, frozen)
    expected = -(teacher.softmax(-1) * student.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(method(batch(), CLOCK).loss.detach(), expected)

    method, frozen = build(top_k=2)
    best = teacher.topk(2).indices
    expected = kl(student.gather(1, best), teacher.gather(1, best)).mean()
    torch.testing.assert_close(method(batch(), CLOCK).loss.detach(), expected)


@pytest.mark.parametrize("target", ["partition", "partition-unsupervised"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_data_partitioning_is_equation_5(target, temperature):
    method, frozen = build(teachers=("mlp-xs",), target=target, temperature=temperature)
    student, teacher, initial = logits(method, frozen)
    p_t, p_st = teacher.softmax(-1), initial.softmax(-1)
    rows = torch.arange(24)
    m_t = p_t[rows, Y] > p_st[rows, Y] if target == "partition" else p_t.amax(-1) > p_st.amax(-1)
    assert 0 < m_t.sum() < 24
    expected = (m_t * kl(student, teacher, temperature) + ~m_t * kl(student, initial, temperature)).mean()
    step = method(batch(Y if target == "partition" else None), CLOCK)
    torch.testing.assert_close(step.loss.detach(), expected)
    assert step.parts["share/teacher1"].item() == pytest.approx(m_t.float().mean().item())
    assert step.parts["share/initial"].item() == pytest.approx(1 - m_t.float().mean().item())


def test_shares_of_several_teachers_sum_to_one():
    method, _ = build(teachers=("cnn-xs", "mlp-xs", "vit-xs"), target="partition")
    parts = method(batch(), CLOCK).parts
    shares = [value.item() for name, value in parts.items() if name.startswith("share/")]
    assert len(shares) == 4
    assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("target", ["partition", "partition-unsupervised", "teacher", "initial", "flip-avg"])
def test_a_teacher_equal_to_the_initial_student_gives_no_gradient_at_the_start(target):
    student = network("mlp-xs", seed=5)
    frozen = {"teacher1": Frozen(copy.deepcopy(student)), "initial": Frozen(copy.deepcopy(student))}
    method = Distill(student, frozen, target=target, temperature=2.0)
    step = method(batch(), CLOCK)
    step.loss.backward()
    assert abs(step.loss.item()) < 1e-7
    # rounding of p_s - p_t in float32, some 1e-8 a logit, times activations of order 1
    assert max(parameter.grad.abs().max().item() for parameter in student.parameters()) < 1e-6


def test_only_the_student_gets_gradients_and_belongs_to_the_method():
    method, frozen = build(target="flip-avg", kl_weight=0.5)
    method(batch(), CLOCK).loss.backward()
    assert all(parameter.grad is not None for parameter in method.student.parameters())
    for net in frozen.values():
        assert all(parameter.grad is None for parameter in net.network.parameters())
    assert {id(p) for p in method.parameters()} == {id(p) for p in method.student.parameters()}
    assert not any("teacher" in name or "initial" in name for name in method.state_dict())
    assert method.products() == {"student": method.student}


def test_parts_are_detached():
    method, _ = build(target="partition", kl_weight=0.5)
    assert not any(part.requires_grad for part in method(batch(), CLOCK).parts.values())


def test_samples_left_to_nobody_are_left_out_of_the_mean():
    rule = FlipRule(positive="teacher", negative="nobody", neutral="nobody")
    method, frozen = build(target=rule)
    student, teacher, _ = logits(method, frozen)
    positive = (teacher.argmax(-1) == Y) & (student.argmax(-1) != Y)
    assert 0 < positive.sum() < 24
    step = method(batch(), CLOCK)
    torch.testing.assert_close(step.loss.detach(), kl(student, teacher)[positive].mean())
    assert step.parts["share/teacher1"].item() == pytest.approx(positive.float().mean().item())


def test_shares_say_what_a_mean_taught():
    method, frozen = build(target="flip-avg")
    student, teacher, _ = logits(method, frozen)
    taught, right = teacher.argmax(-1) == Y, student.argmax(-1) == Y
    parts = method(batch(), CLOCK).parts
    expected = {"mean": taught == right, "teacher1": taught & ~right, "initial": right & ~taught}
    assert {name: parts[f"share/{name}"].item() for name in expected} == {
        name: pytest.approx(kept.float().mean().item()) for name, kept in expected.items()
    }


def test_numbers_are_distilled_by_their_squares():
    student = load_model("fresh:zoo:mlp-xs", num_classes=1, channels=1, image_size=(12, 12), seed=5)
    teacher = load_model("fresh:zoo:cnn-xs", num_classes=1, channels=1, image_size=(12, 12), seed=1)
    method = Distill(student, {"teacher1": Frozen(teacher), "initial": Frozen(copy.deepcopy(student))}, kl_weight=0.75)
    assert method.needs() == {"teacher", "same outputs", "labels"}
    step = method(batch(Y.float()), CLOCK)
    with torch.no_grad():
        said, taught = student(X).logits.flatten(), teacher(X).logits.flatten()
    expected = 0.75 * ((said - taught) ** 2).mean() + 0.25 * ((said - Y) ** 2).mean()
    torch.testing.assert_close(step.loss.detach(), expected)
    with pytest.raises(UserError, match="the student gives one number: use target 'teacher'"):
        Distill(student, {"teacher1": Frozen(teacher)}, target="flip-t")


def test_a_teacher_that_the_target_ignores_is_not_asked():
    method, frozen = build(target="initial")
    frozen["teacher1"].signal = pytest.fail
    assert set(method(batch(), CLOCK).parts) == {"kl", "share/initial"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "zoo:a (teacher, weight 1)"),
        ({"target": "partition", "kl_weight": 0.75}, "zoo:a (partition, weight 0.75) and labels (weight 0.25)"),
        ({"target": "initial"}, "itself (initial, weight 1)"),
        ({"target": FlipRule(neutral="nobody")}, "zoo:a (by a rule, weight 1)"),
        ({"kl_weight": 0.0}, "labels (weight 1)"),
    ],
)
def test_who_teaches_in_words(settings, words):
    assert build(**settings)[0].taught_by(["zoo:a"]) == words


def test_head_warmup_has_two_players_of_which_the_head_moves_first():
    method, _ = build(student=network("vit-xs"), head_warmup_epochs=2)
    players = method.players()
    trained = {name: {id(p) for g in player.groups for p in g.parameters} for name, player in players.items()}
    assert trained["head"] == {id(p) for p in method.student.head.parameters()}
    assert trained["head"] | trained["body"] == {id(p) for p in method.student.parameters()}
    assert not trained["head"] & trained["body"]
    at = [method.moving(Clock(step=step, steps_per_epoch=2, epochs=4, batch_size=24)) for step in range(8)]
    assert at == [("head",)] * 4 + [None] * 4


def test_without_a_warmup_everything_is_one_player():
    method, _ = build(optimiser=Optimiser(lr=0.5, clip=2.0))
    (player,) = method.players().values()
    assert [id(p) for g in player.groups for p in g.parameters] == [id(p) for p in method.student.parameters()]
    assert (player.clip, method.moving(CLOCK)) == (2.0, None)


@pytest.mark.parametrize(
    ("settings", "needs"),
    [
        ({}, {"teacher", "same classes"}),
        ({"kl_weight": 0.5}, {"teacher", "same classes", "labels"}),
        ({"target": "partition"}, {"teacher", "same classes", "labels", "whole labels"}),
        ({"target": "partition-unsupervised"}, {"teacher", "same classes"}),
        ({"target": "flip-t"}, {"teacher", "same classes", "labels", "whole labels"}),
        ({"target": "initial"}, set()),
        ({"target": FlipRule(negative="nobody")}, {"teacher", "same classes", "labels", "whole labels"}),
    ],
)
def test_needs(settings, needs):
    assert build(**settings)[0].needs() == needs


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kl_weight": 1.5}, "key 'method.kl_weight' is 1.5: set it to a share between 0 and 1"),
        ({"kl_weight": -0.1}, "key 'method.kl_weight' is -0.1: set it to a share between 0 and 1"),
        ({"temperature": 0.0}, "key 'method.temperature' is 0.0: set it to a number above 0"),
        ({"temperature": float("nan")}, "key 'method.temperature' is nan: set it to a number above 0"),
        ({"top_k": 0}, "key 'method.top_k' is 0: set it to 1 to 4, or null for all classes"),
        ({"smoothing": 1.5}, "key 'method.smoothing' is 1.5: set it to a share between 0 and 1"),
        ({"head_warmup_epochs": -1}, "key 'method.head_warmup_epochs' is -1: set it to at least 0"),
        ({"target": "partion"}, "unknown target 'partion': did you mean 'partition'?"),
    ],
)
def test_mistakes_are_one_line(settings, message):
    with pytest.raises(UserError) as error:
        build(**settings)
    assert str(error.value) == message


def test_several_teachers_need_a_target_that_takes_them():
    with pytest.raises(UserError, match=r"^target 'teacher' takes one teacher, 2 given: use target 'partition'$"):
        build(teachers=("cnn-xs", "mlp-xs"))
