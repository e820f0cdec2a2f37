"""Hints, features, attention and relations against plain re-derivations, and what they share."""

import pytest
import torch
import torch.nn.functional as F

from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.errors import UserError
from osmose.methods.attention import Attention, attention
from osmose.methods.feature import Feature
from osmose.methods.fitnet import FitNet
from osmose.methods.guided import Answers, mean_square
from osmose.methods.relational import Relational
from osmose.models import load_model
from osmose.models.layout import Layout
from osmose.signals import Frozen

X = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % 4
CLOCK = Clock(step=0, steps_per_epoch=2, epochs=4, batch_size=6)
LATE = Clock(step=7, steps_per_epoch=2, epochs=4, batch_size=6)
ALONE = Answers(labels=0.0)
METHODS = [FitNet, Feature, Attention, Relational]


def network(name, seed, **options):
    return load_model(f"fresh:zoo:{name}", num_classes=4, channels=1, image_size=(12, 12), seed=seed, **options).eval()


def build(kind, student="vit-xs", teacher="cnn-xs", **settings):
    frozen = {"teacher1": Frozen(network(teacher, 1)), "initial": Frozen(network(student, 2))}
    torch.manual_seed(3)
    method = kind(network(student, 0), frozen, **settings)
    method.fit_to([(1, 12, 12)], torch.arange(6))
    return method.eval(), frozen


def batch():
    return Batch(torch.arange(6), 0, X, Y)


def state(network, path, x=X):
    seen = []
    hook = dict(network.body.named_modules())[path].register_forward_hook(lambda m, i, o: seen.append(o.clone()))
    network(x)
    hook.remove()
    return seen[0]


def same(method, clock, expected):
    """The method's loss, and its gradients in everything that trains, are those of a loss that the test wrote out."""
    loss, trained = method(batch(), clock).loss, list(method.parameters())
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    ours, plain = (torch.autograd.grad(one, trained, allow_unused=True) for one in (loss, expected))
    assert any(one is not None for one in ours)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_hints_are_equation_3():
    """Tokens of 4 patches (2x2) against a map of 3x3: each place of the student is interpolated to the teacher's."""
    method, frozen = build(FitNet)
    assert method.student_fields == ["states.layers.0"]
    assert method.teacher_fields == ["states.layers.1"]
    ours, theirs = state(method.student, "layers.0"), state(frozen["teacher1"].network, "layers.1")
    guessed = method.added["regressor"](ours)
    image = guessed.unflatten(1, (2, 2)).permute(0, 3, 1, 2)
    image = F.interpolate(image, theirs.shape[2:], mode="bilinear")
    same(method, CLOCK, 0.5 * ((image - theirs.detach()) ** 2).mean())


def test_after_its_share_the_hint_is_silent():
    method, frozen = build(FitNet, hint_share=0.5)
    student, teacher = method.student(X).logits, frozen["teacher1"](X).logits
    kl = 9 * F.kl_div((student / 3).log_softmax(-1), (teacher / 3).softmax(-1), reduction="batchmean")
    same(method, LATE, F.cross_entropy(student, Y) + kl)
    assert set(method(batch(), CLOCK).parts) == {"hint"}


def test_hints_train_the_layers_below_them_alone():
    method, _ = build(FitNet)
    method(batch(), CLOCK).loss.backward()
    trained = {name for name, parameter in method.student.body.named_parameters() if parameter.grad is not None}
    assert trained
    assert all(name.startswith(("position", "patches", "layers.0")) for name in trained)
    assert method.added["regressor"].weight.grad is not None


def test_features_are_compared_behind_a_projection():
    method, frozen = build(Feature, weight=2.0, answers=Answers(labels=0.5))
    student, teacher = method.student(X), frozen["teacher1"](X)
    guessed = student.features @ method.added["projection"].weight.T + method.added["projection"].bias
    relative = ((guessed - teacher.features) ** 2).sum() / (teacher.features**2).sum()
    expected = 0.5 * F.cross_entropy(student.logits, Y) + 2 * relative
    same(method, CLOCK, expected)


def test_features_of_layers_by_name():
    method, frozen = build(Feature, student_layer="layers.1", teacher_layer="layers.0", answers=ALONE)
    ours, theirs = state(method.student, "layers.1"), state(frozen["teacher1"].network, "layers.0")
    image = method.added["projection"](ours).unflatten(1, (2, 2)).permute(0, 3, 1, 2)
    image = F.interpolate(image, theirs.shape[2:], mode="bilinear")
    same(method, CLOCK, ((image - theirs) ** 2).sum() / (theirs**2).sum())


def test_attention_is_equation_2_on_the_smaller_grid():
    method, frozen = build(Attention, weight=10.0, answers=ALONE)
    expected = 0.0
    for ours, theirs in (("layers.0", "layers.0"), ("layers.1", "layers.2")):
        tokens, image = state(method.student, ours), state(frozen["teacher1"].network, theirs)
        one = (tokens**2).mean(-1)
        other = F.adaptive_avg_pool2d((image**2).mean(1, keepdim=True), (2, 2)).flatten(1)
        maps = [each / each.norm(dim=1, keepdim=True) for each in (one, other)]
        expected = expected + 5 * ((maps[0] - maps[1]) ** 2).mean()
    same(method, CLOCK, expected)


def test_a_class_token_is_no_place_of_attention():
    """Between a map of 3 x 3 places, and 2 x 2 behind a token in front."""
    tokens, image = torch.rand(2, 5, 3), torch.rand(2, 7, 3, 3)
    ours, theirs = Layout("tokens", 3, 5, (2, 2), 1), Layout("map", 7, 9, (3, 3))
    one = F.normalize((tokens[:, 1:] ** 2).mean(-1), dim=-1)
    other = F.normalize(F.adaptive_avg_pool2d((image**2).mean(1, keepdim=True), (2, 2)).flatten(1), dim=-1)
    torch.testing.assert_close(attention(ours, tokens, theirs), one)
    torch.testing.assert_close(attention(theirs, image, ours), other)


def test_attention_on_as_many_places_of_another_grid():
    wide, square = Layout("map", 3, 16, (2, 8)), Layout("map", 3, 16, (4, 4))
    image = torch.rand(2, 3, 4, 4)
    squares = (image**2).mean(1, keepdim=True)
    columns = F.interpolate(squares, (4, 8), mode="bilinear")
    expected = F.normalize(F.adaptive_avg_pool2d(columns, (2, 8)).flatten(1), dim=-1)
    torch.testing.assert_close(attention(square, image, wide), expected)
    plain = torch.rand(2, 3, 2, 8)
    torch.testing.assert_close(attention(wide, plain, square), F.normalize((plain**2).mean(1).flatten(1), dim=-1))


def test_relations_are_equations_5_and_8():
    method, frozen = build(Relational, distance_weight=2.0, angle_weight=3.0, answers=ALONE)
    ours, theirs = method.student(X).features, frozen["teacher1"](X).features

    def relations(features):
        apart = torch.cdist(features, features)
        apart = apart / (apart.sum() / 30)
        cosines = torch.zeros(6, 6, 6)
        for i in range(6):
            for j in range(6):
                for k in range(6):
                    if i not in (j, k):
                        cosines[i, j, k] = F.cosine_similarity(
                            features[j] - features[i], features[k] - features[i], dim=0
                        )
        return apart, cosines

    (d1, a1), (d2, a2) = relations(ours), relations(theirs)
    expected = 2 * F.huber_loss(d1, d2) + 3 * F.huber_loss(a1, a2)
    same(method, CLOCK, expected)


@pytest.mark.parametrize("kind", METHODS)
def test_a_partition_may_teach_beside_it(kind):
    method, frozen = build(kind, answers=Answers(labels=0.0, kl=1.0, target="partition", temperature=2.0))
    assert method.reads()["initial"] == ("logits",)
    assert "logits" in method.reads()["teacher1"]
    assert method.needs() == {"teacher", "same classes", "labels", "whole labels"}
    student, teacher, initial = (one(X).logits for one in (method.student, frozen["teacher1"], frozen["initial"]))
    rows = torch.arange(6)
    taught = torch.where((teacher.softmax(-1)[rows, Y] > initial.softmax(-1)[rows, Y])[:, None], teacher, initial)
    kl = 4 * F.kl_div((student / 2).log_softmax(-1), (taught / 2).softmax(-1), reduction="batchmean")
    torch.testing.assert_close(method(batch(), LATE).parts["kl"], kl)


@pytest.mark.parametrize("kind", [FitNet, Feature, Attention])
def test_states_are_compared_wide(kind):
    """The networks compute in bfloat16, all else in float32: as far as bfloat16 carries, the loss is that without it."""
    method, _ = build(kind)
    plain = method(batch(), CLOCK)
    with torch.autocast("cpu", torch.bfloat16):
        step = method(batch(), CLOCK)
    assert step.loss.dtype == torch.float32
    torch.testing.assert_close(step.loss, plain.loss, rtol=0.05, atol=0.02)
    ours, theirs = torch.randn(2, 6, 9, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = mean_square(ours, theirs)
        seen = attention(Layout("map", 8, 9, (3, 3)), ours.mT.unflatten(2, (3, 3)), Layout("map", 8, 9, (3, 3)))
    torch.testing.assert_close(found.double(), (ours.double() - theirs.double()).square().mean(), rtol=1e-6, atol=0)
    squares = ours.double().square().mean(-1)
    torch.testing.assert_close(seen.double(), squares / squares.norm(dim=-1, keepdim=True), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", METHODS)
def test_the_teachers_classes_do_not_matter(kind):
    frozen = {"teacher1": Frozen(load_model("fresh:zoo:cnn-xs", num_classes=7, channels=1, image_size=(12, 12)))}
    method = kind(network("vit-xs", 0), frozen, answers=Answers())
    method.fit_to([(1, 12, 12)], torch.arange(6))
    assert method.needs() == {"teacher", "labels"}
    assert method(batch(), CLOCK).loss.isfinite()


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (FitNet, {"hint_share": 2}, "key 'method.hint_share' is 2: set it to a share between 0 and 1"),
        (FitNet, {"student": "mlp-xs"}, "does not say which of its layers follow one another: name them"),
        (FitNet, {"hint": "layers.7"}, "unknown layer of 'fresh:zoo:cnn-xs': 'layers.7': did you mean"),
        (Feature, {"weight": -1}, "key 'method.weight' is -1: set it to a number of at least 0"),
        (Attention, {"student_layers": ["layers.0"]}, "names 1 layers and method.teacher_layers 2: name as many"),
        (
            Attention,
            {"student": "mlp-xs", "student_layers": ["hidden", "hidden"]},
            "give one place, where no attention can be",
        ),
        (FitNet, {"answers": ALONE}, "method.answers.labels and .kl are 0, so that there is nothing to learn"),
        (
            Feature,
            {"answers": ALONE, "weight": 0.0},
            "are 0, so that there is nothing to learn: give one of them a weight",
        ),
        (Relational, {"angle_weight": -1}, "key 'method.angle_weight' is -1: set it to a number of at least 0"),
    ],
)
def test_mistakes(kind, settings, message):
    with pytest.raises(UserError) as caught:
        build(kind, **settings)
    assert message in str(caught.value)


def test_answers_are_checked():
    with pytest.raises(UserError, match=r"key 'method.answers.kl' is -1: set it to a number of at least 0"):
        Answers(kl=-1)
    with pytest.raises(UserError, match=r"key 'method.answers.temperature' is 0: set it to a number above 0"):
        Answers(temperature=0)


@pytest.mark.parametrize("count", [0, 2])
def test_one_teacher_is_needed(count):
    frozen = {f"teacher{number}": Frozen(network("cnn-xs", number)) for number in range(1, count + 1)}
    with pytest.raises(
        UserError, match="compares a student with one other network and (needs a teacher|takes one teacher, 2)"
    ):
        Feature(network("vit-xs", 0), frozen)
