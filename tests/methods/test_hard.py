"""HARD against its equations, and its two phases as a machine of states."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.engine.optimiser import Optimiser
from osmose.errors import UserError
from osmose.methods.hard import Hard
from osmose.models import load_model
from osmose.signals import Frozen

X = torch.rand(24, 1, 12, 12, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 4
CLOCK = Clock(step=0, steps_per_epoch=2, epochs=4, batch_size=24)


def network(name, seed=0, classes=4):
    return load_model(f"fresh:zoo:{name}", num_classes=classes, channels=1, image_size=(12, 12), seed=seed)


def build(*, student="mlp-xs", classes=4, **settings):
    frozen = {
        "teacher1": Frozen(network("cnn-xs", seed=1, classes=classes)),
        "initial": Frozen(network("mlp-xs", 9, classes)),
    }
    settings = {"augmentor_batch": None, "augmentor": {"name": "affine", "noise": 0.2}, **settings}
    torch.manual_seed(0)
    method = Hard(network(student, seed=5, classes=classes), frozen, **settings)
    method.fit_to([(1, 12, 12)], torch.arange(24))
    return method.train()


def batch():
    return Batch(torch.arange(24), 0, X, Y)


def augmented(method, clock=CLOCK, state=None):
    with clock.stream("hard/noise"):
        return torch.func.functional_call(method.augmentor, state or {}, (X,))


def kl(student, teacher, temperature):
    """D of the paper, one sample after the other."""
    p, q = (teacher / temperature).softmax(-1), (student / temperature).softmax(-1)
    return temperature**2 * (p * (p.log() - q.log())).sum(-1).mean()


def in_student_phase(**settings):
    method = build(**settings)
    method.phase = "student"
    return method


def test_the_pool_goes_where_the_module_goes():
    """Here to another dtype, as to another device: it is neither parameters nor buffers."""
    method = build().double()
    assert {value.dtype for kept in method.pool for value in kept.values()} == {torch.float64}


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_the_augmentors_loss_is_equation_3(temperature):
    method = build(temperature=temperature, lambda_s=0.7, lambda_t=1.9)
    step = method(batch(), CLOCK)
    with torch.no_grad():
        x = augmented(method)
        student, teacher = method.student.eval(), method.panel.teachers[0]
        disagreement = kl(student(x).logits, teacher(x).logits, temperature)
        invariance = kl(teacher(x).logits, teacher(X).logits, temperature)
    torch.testing.assert_close(step.loss.detach(), 1.9 * invariance - 0.7 * disagreement)
    torch.testing.assert_close(step.parts["invariance"], invariance)
    torch.testing.assert_close(step.parts["disagreement"], disagreement)


def test_the_students_loss_is_equation_1_on_an_augmentor_of_the_pool():
    method = in_student_phase()
    method.pool = [{name: value + number for name, value in method.pool[0].items()} for number in (0.0, 0.1, 0.2)]
    step = method(batch(), CLOCK)
    with torch.no_grad():
        x = augmented(method, state=method.pool[method._drawn(CLOCK)])
        expected = kl(method.student(x).logits, method.panel.teachers[0](x).logits, 5.0)
    torch.testing.assert_close(step.loss.detach(), expected)


def test_every_augmentor_of_the_pool_is_drawn_as_often():
    """Chi-square of 3,000 draws among 5, at most 18.5 (4 degrees of freedom, p = 0.001)."""
    method = build()
    method.pool = method.pool * 5
    counts = [0] * 5
    for step in range(3000):
        counts[method._drawn(replace(CLOCK, step=step))] += 1
    assert sum((count - 600) ** 2 / 600 for count in counts) < 18.5


def test_a_partition_is_computed_on_the_augmented_images():
    method = in_student_phase(target="partition", temperature=1.0)
    loss = method(batch(), CLOCK).loss.detach()
    with torch.no_grad():
        x = augmented(method, state=method.pool[0])
        teacher, initial, student = (
            method.panel.teachers[0](x).logits,
            method.panel.initial(x).logits,
            method.student(x).logits,
        )
        rows = torch.arange(24)
        knows = teacher.softmax(-1)[rows, Y] > initial.softmax(-1)[rows, Y]
        assert 0 < knows.sum() < 24
        on_x = (
            method.panel.teachers[0](X).logits.softmax(-1)[rows, Y]
            > method.panel.initial(X).logits.softmax(-1)[rows, Y]
        )
        assert not torch.equal(knows, on_x)
        taught = torch.where(knows[:, None], teacher, initial)
    torch.testing.assert_close(loss, kl(student, taught, 1.0))


def test_who_learns_in_which_phase():
    for phase, moving in (("augmentor", "augmentor"), ("student", "student")):
        method = build(student="cnn-s")
        method.phase = phase
        assert method.moving(CLOCK) == (moving,)
        for player in method.players().values():
            for group in player.groups:
                for parameter in group.parameters:
                    parameter.requires_grad_(False)
        (method.augmentor if moving == "augmentor" else method.student).requires_grad_(True)
        before = copy.deepcopy(method.student.state_dict())
        method(batch(), CLOCK).loss.backward()
        for name, module in (("augmentor", method.augmentor), ("student", method.student)):
            grads = [parameter.grad for parameter in module.parameters()]
            if name == moving:
                assert all(grad is not None and grad.abs().sum() > 0 for grad in grads)
            else:
                assert all(grad is None for grad in grads)
        # a student that only judges keeps its running statistics
        running = {key: value for key, value in method.student.state_dict().items() if "running_" in key}
        assert running
        same = all(torch.equal(value, before[key]) for key, value in running.items())
        assert same == (phase == "augmentor")
        assert all(parameter.grad is None for parameter in method.panel.teachers[0].network.parameters())


def test_at_the_identity_the_teacher_is_invariant_and_its_gradient_vanishes():
    method = build(augmentor={"name": "affine", "noise": 1e-12}, lambda_s=1e-12)
    step = method(batch(), CLOCK)
    assert step.parts["invariance"].item() == pytest.approx(0, abs=1e-8)
    step.loss.backward()
    assert method.augmentor.mean.grad.abs().max() < 1e-4


def error(value):
    """What a step in which the student's error was `value` leaves to `after_step`."""
    return torch.tensor([1.0, value, 1.0, 1.0])


def walk(method, errors):
    """The phases after steps with these errors."""
    phases = []
    for step, value in enumerate(errors):
        method.watched.copy_(error(value))
        method.after_step(replace(CLOCK, step=step))
        phases.append(method.phase)
    return phases


def test_phases_switch_after_enough_steps_in_a_row_and_a_step_late():
    method = build(consecutive=3, l_min=0.1, l_max=0.5)
    # three in a row are there at step 4 (from 0); a step later it is known
    phases = walk(method, [0.6, 0.6, 0.4, 0.6, 0.6, 0.6, 0.9, 0.9])
    assert phases == ["augmentor"] * 6 + ["student"] * 2
    assert len(method.pool) == 2
    # the error of the step before the switch was made was the augmentor phase's; equal to the threshold is not below
    phases = walk(method, [0.05, 0.05, 0.1, 0.05, 0.05, 0.05, 0.3, 0.3])
    assert phases == ["student"] * 6 + ["augmentor"] * 2
    assert len(method.pool) == 2  # only what the augmentor learned is new


def test_what_belongs_to_the_phase_before_is_not_counted():
    method = build(consecutive=1, l_min=0.1, l_max=0.5)
    assert walk(method, [0.9, 0.0]) == ["augmentor", "student"]  # 0.0 was still measured in the augmentor's phase
    assert walk(method, [0.9, 0.9, 0.9]) == ["student"] * 3


def test_a_limit_ends_a_phase_whatever_the_error():
    method = build(consecutive=2, l_min=0.1, l_max=0.5, phase_limit=4)
    # four errors count, and the last of them is known a step later; after a switch one is left out
    assert walk(method, [0.3] * 8) == ["augmentor"] * 4 + ["student"] * 4
    assert len(method.pool) == 2
    assert walk(method, [0.3] * 4) == ["student"] + ["augmentor"] * 3
    method = build(consecutive=2, l_min=0.1, l_max=0.5, phase_limit=4)
    assert walk(method, [0.9] * 4) == ["augmentor"] * 2 + ["student"] * 2  # the threshold comes first


def test_the_pool_keeps_the_newest():
    method = build(pool_limit=2, consecutive=1)
    for number in range(4):
        with torch.no_grad():
            method.augmentor.mean.fill_(float(number))
        method.phase = "augmentor"
        method._switch(1.0, 0)
    assert [kept["mean"][0, 0].item() for kept in method.pool] == [2.0, 3.0]


def test_the_pool_is_a_copy():
    method = build(consecutive=1)
    method._switch(1.0, 0)
    with torch.no_grad():
        method.augmentor.mean.add_(1.0)
    assert all(kept["mean"].abs().max() < 1 for kept in method.pool)


@pytest.mark.parametrize("phase", ["augmentor", "student"])
def test_error_is_the_share_of_wrong_answers_or_of_disagreement(phase):
    for switch_on in ("error", "disagreement"):
        method = build(switch_on=switch_on)
        method.phase = phase
        step = method(batch(), CLOCK)
        with torch.no_grad():
            x = augmented(method, state=None if phase == "augmentor" else method.pool[0])
            said, taught = method.student(x).logits.argmax(-1), method.panel.teachers[0](x).logits.argmax(-1)
        expected = (said != (Y if switch_on == "error" else taught)).float().mean()
        assert step.parts["error"].item() == pytest.approx(expected.item())
        assert method.watched[:2].tolist() == pytest.approx([1.0, expected.item()])


def test_regression_compares_squares():
    method = build(classes=1, augmentor={"name": "gaussian", "noise": 0.5}, switch_on="disagreement")
    step = method(Batch(torch.arange(24), 0, X, Y.float()), CLOCK)
    with torch.no_grad():
        x = augmented(method)
        student, teacher, plain = (
            method.student(x).logits,
            method.panel.teachers[0](x).logits,
            method.panel.teachers[0](X).logits,
        )
    invariance, disagreement = ((teacher - plain) ** 2).mean(), ((student - teacher) ** 2).mean()
    torch.testing.assert_close(step.loss.detach(), invariance - disagreement)
    torch.testing.assert_close(step.parts["error"], disagreement)


def test_the_augmentor_trains_on_its_own_batch():
    method = build(augmentor_batch=12)
    assert method._rows(24, CLOCK) == 12
    assert method._rows(6, replace(CLOCK, batch_size=24)) == 3  # of a shard its share
    assert method._rows(24, replace(CLOCK, batch_size=8)) == 24
    step = method(batch(), CLOCK)
    with torch.no_grad(), CLOCK.stream("hard/noise"):
        x = method.augmentor(X[:12])
        disagreement = kl(method.student(x).logits, method.panel.teachers[0](x).logits, 5.0)
    torch.testing.assert_close(step.parts["disagreement"], disagreement)


def test_mix_reverses_the_augmentors_gradient():
    """One loss: the student's gradient is its own, the augmentor's is -lambda_s times its own."""
    method = build(augmentor={"name": "mix", "patch": 4}, lambda_s=0.3, temperature=2.0)
    assert method.moving(CLOCK) is None
    step = method(batch(), CLOCK)
    step.loss.backward()
    student = [parameter.grad.clone() for parameter in method.student.parameters()]
    mixing = [parameter.grad.clone() for parameter in method.augmentor.parameters()]
    x = augmented(method)
    assert len(x) == 12
    loss = kl(method.student(x).logits, method.panel.teachers[0](x).logits, 2.0)
    torch.testing.assert_close(step.loss, loss)
    wanted = torch.autograd.grad(loss, [*method.student.parameters(), *method.augmentor.parameters()])
    for ours, theirs in zip([*student, *mixing], wanted, strict=True):
        sign = 1.0 if any(ours is grad for grad in student) else -0.3
        torch.testing.assert_close(ours, sign * theirs, rtol=1e-3, atol=1e-6)


def test_state_goes_on_where_it_was():
    first, second = build(consecutive=2), build(consecutive=2)
    walk(first, [0.9, 0.9, 0.9, 0.01])
    assert first.phase == "student"
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert walk(first, [0.01, 0.01, 0.9]) == walk(second, [0.01, 0.01, 0.9]) == ["student", "augmentor", "augmentor"]
    assert len(first.pool) == len(second.pool) == 2


@pytest.mark.parametrize(
    ("spread", "said"), [(0.0, "are the same for all inputs"), (float("nan"), "are no longer finite")]
)
def test_a_collapsed_augmentor_is_one_line(spread, said):
    method = build()
    method.watched.copy_(torch.tensor([1.0, 0.1, spread, 1.0]))
    method.after_step(CLOCK)
    with pytest.raises(UserError, match=rf"^the augmentor collapsed at step 1: its outputs {said}; lower "):
        method.after_step(replace(CLOCK, step=1))


def test_micro_batches_of_one_sample_tell_nothing_of_a_collapse():
    method = build(augmentor_batch=1)
    for step in range(2):
        method(batch(), replace(CLOCK, step=step))
        assert method.watched[2:].tolist() == [0, 0]
        method.after_step(replace(CLOCK, step=step))


def test_spread_is_the_variance_between_samples():
    method = build()
    method(batch(), CLOCK)
    x = augmented(method).detach()
    expected = [(images - images.mean(0)).square().mean().item() for images in (x, X)]
    assert method.watched[2:].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"l_min": 0.5, "l_max": 0.4}, "key 'method.l_min' is 0.5: set it to at least 0 and below l_max, which is 0.4"),
        ({"consecutive": 0}, "key 'method.consecutive' is 0: set it to at least 1"),
        ({"phase_limit": 0}, "key 'method.phase_limit' is 0: set it to at least 1, or null"),
        ({"augmentor": "mix", "target": "partition"}, "target 'partition' needs labels, which images blended by augmentor mix do "
         "not have: use target 'teacher' or 'partition-unsupervised'"),
        ({"classes": 1, "target": "flip-t"}, "target 'flip-t' compares classes and the student gives one number: use target "
         "'teacher' or 'partition'"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(settings, message):
    with pytest.raises(UserError) as caught:
        build(**settings)
    assert str(caught.value) == message


def test_what_the_pair_check_is_asked():
    assert build().needs() == {"images", "teacher", "same classes", "labels", "whole labels"}
    assert build(switch_on="disagreement").needs() == {"images", "teacher", "same classes"}
    assert build(augmentor="mix").needs() == {"images", "teacher", "same classes"}
    assert build(target="initial", switch_on="disagreement").needs() == {"images", "same classes"}
    assert build(classes=1).needs() == {"images", "teacher", "same outputs", "labels", "whole labels"}


def test_the_difference_of_reference_and_library():
    """The loop above against torch's own divergence."""
    a, b = torch.randn(5, 4), torch.randn(5, 4)
    library = F.kl_div((a / 3).log_softmax(-1), (b / 3).softmax(-1), reduction="batchmean") * 9
    torch.testing.assert_close(kl(a, b, 3.0), library)


def test_a_chains_parts_have_rates_of_their_own():
    """Affine parameters and a generator's noise at the optimiser's rate, a generator's weights at a share of it."""
    augmentor = [{"name": "generator", "rate": 0.01}, "affine"]
    method = build(augmentor=augmentor, augmentor_optimiser=Optimiser(name="adam", lr=0.05))
    clock = replace(CLOCK, batch_size=256)
    weights, noise, affine = method.players()["augmentor"].groups
    assert weights.lr(clock) == pytest.approx(0.0005)
    assert noise.lr(clock) == affine.lr(clock) == 0.05
    assert [len(noise.parameters), len(affine.parameters)] == [1, 2]
    assert {id(one) for one in weights.parameters} == {id(one) for one in method.augmentor.parts[0].model.parameters()}
