"""Mismatches between networks, data and method, each with a cure."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from osmose.data import load_data
from osmose.engine.method import Method
from osmose.errors import UserError
from osmose.models import load_model
from osmose.pair_check import check_head, check_pair

ALL = frozenset({"teacher", "same classes", "labels"})


class Asks(Method):
    without_labels = "use target 'initial'"

    def __init__(self, needs):
        super().__init__()
        self.asked = needs

    def needs(self):
        return frozenset(self.asked)

    def players(self):
        return {}

    def forward(self, batch, clock):
        raise AssertionError

    def products(self):
        return {}


@pytest.fixture(scope="module")
def data(colour):
    return load_data(colour)


@pytest.fixture(scope="module")
def nameless(grey):
    return load_data(grey, heldout=0.2)


def network(data, name="cnn-xs", **changes):
    about = {"classes": data.classes, "num_classes": data.num_classes, "channels": data.channels,
             "image_size": data.image_size, **changes}  # fmt: skip
    return load_model(f"fresh:zoo:{name}", **about)


def module(data, classes=None, channels=None):
    """A network without a name, as given through the API."""
    channels = channels or data.channels
    height, width = data.image_size
    body = nn.Sequential(
        nn.Flatten(), nn.Linear(channels * height * width, len(classes) if classes else data.num_classes)
    )
    return load_model(body, classes=classes, channels=channels)


def check(student, teachers, data, needs=ALL):
    return check_pair(student, teachers, data, Asks(needs))


def error(*args, **kwargs):
    with pytest.raises(UserError) as caught:
        check(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


HEAD = "fit a new head first, osmose transfer --method supervised --method.train head --student head:"


def test_a_fitting_pair_passes_without_notes(data):
    assert check(network(data), {"fresh:zoo:vit-xs": network(data, "vit-xs")}, data) == []


def test_a_teacher_with_another_number_of_classes(data):
    teacher = network(data, classes=tuple("abcdefg"), num_classes=7)
    teacher.name = "zoo:cnn-xs"
    said = error(network(data), {"zoo:cnn-xs": teacher}, data)
    assert said == (
        f"teacher zoo:cnn-xs knows 7 classes, student fresh:zoo:cnn-xs 3: give data of its classes, or "
        f"{HEAD}zoo:cnn-xs --data ..."
    )


def test_a_teacher_with_other_classes(data):
    teacher = network(data, classes=("ant", "bee", "dog"))
    said = error(network(data), {"t": teacher}, data)
    assert said.startswith("teacher t has other classes (it lacks cat) than student fresh:zoo:cnn-xs, so ")
    assert HEAD in said


def test_a_teacher_with_the_same_classes_in_another_order(data):
    teacher = network(data, classes=("bee", "ant", "cat"))
    said = error(network(data), {"t": teacher}, data)
    assert "teacher t has the same classes in another order than student" in said


def test_a_student_that_does_not_fit_the_data(data):
    said = error(network(data, classes=("bee", "ant", "cat")), {"t": network(data)}, data)
    assert said.startswith(f"student fresh:zoo:cnn-xs has the same classes in another order than {data.name}")
    said = error(network(data, classes=tuple("abcd"), num_classes=4), {}, data, needs={"labels"})
    assert said.startswith(
        f"student fresh:zoo:cnn-xs knows 4 classes, {data.name} has 3: give data of its classes, or {HEAD}zoo:cnn-xs "
        f"--data {data.name}"
    )


def test_labels_of_one_class_tell_nothing(data):
    one = replace(data, classes=("ant",), num_classes=1)
    said = error(network(data, classes=("ant",), num_classes=1), {}, one, needs={"labels"})
    assert said == f"{data.name} has one class, so that its labels tell nothing: give images of two or more"


def test_the_cure_for_a_module_is_not_a_name_that_does_not_exist(data):
    said = error(network(data), {"t": module(data, classes=tuple("abcd"))}, data)
    assert said.endswith("give data of its classes, or give the module a head for these and train it first")


def test_a_second_teacher_is_checked_too(data):
    teachers = {"a": network(data), "b": network(data, classes=("bee", "ant", "cat"))}
    assert "teacher b has the same classes in another order" in error(network(data), teachers, data)


def test_what_the_method_does_not_ask_for_is_not_checked(data):
    odd = network(data, classes=tuple("abcd"), num_classes=4)
    assert check(network(data), {"t": odd}, data, needs=set()) == []
    assert error(odd, {}, data, needs=set()).startswith("student fresh:zoo:cnn-xs knows 4 classes")
    unlabelled = replace(data, train=data.train.unlabelled())
    assert check(network(data), {"t": network(data, "vit-xs")}, unlabelled, needs={"teacher", "same classes"}) == []


def test_missing_labels_and_teachers(data):
    unlabelled = replace(data, train=data.train.unlabelled())
    said = error(network(data), {"t": network(data)}, unlabelled)
    assert (
        said
        == f"the method needs labels and {data.name} is used without them: set data.labelled, or use target 'initial'"
    )
    assert error(network(data), {}, data) == "the method needs a teacher: give --teacher; see `osmose show models`"


def test_numbers_for_labels_are_refused_where_classes_are_compared(data):
    numbers = replace(data, task="regression", num_classes=None, classes=None)
    said = error(network(data), {"t": network(data)}, numbers)
    assert said == f"the method compares classes and {data.name} has numbers for labels: use method supervised"


def test_colour_data_with_a_grey_network(data):
    said = error(network(data), {"t": network(data, channels=1)}, data)
    assert said.startswith(f"teacher t takes 1 channel(s), {data.name} has 3: use a network made for 3 channels")
    said = error(network(data, channels=1), {"t": network(data)}, data)
    assert said.startswith("student fresh:zoo:cnn-xs takes 1 channel(s)")


def test_adaptations_are_noted(nameless):
    student = network(nameless, channels=3)
    teacher = network(nameless, "vit-xs", image_size=(14, 14))
    assert check(student, {"fresh:t": teacher}, nameless) == [
        f"student fresh:zoo:cnn-xs takes 3 channels: the one of {nameless.name} is repeated",
        "teacher fresh:t takes 14x14 pixels: images of 12x12 are resized",
    ]


@pytest.fixture(scope="module")
def trained(nameless):
    """A linear network without class names, trained until it is right on most of the data, and its copy with a shuffled head."""
    net = module(nameless)
    x, y = nameless.train.inputs.read(torch.arange(len(nameless.train))).float() / 255, nameless.train.labels
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x).logits, y).backward()
        optimiser.step()
    assert (net(x).logits.argmax(-1) == y).float().mean() > 0.8
    shuffled = module(nameless)
    shuffled.load_state_dict(net.state_dict())
    with torch.no_grad():
        shuffled.head.weight.copy_(net.head.weight.roll(1, 0))
        shuffled.head.bias.copy_(net.head.bias.roll(1, 0))
    return net, shuffled


def test_without_names_the_right_label_order_passes_and_a_wrong_one_does_not(nameless, trained):
    right, shuffled = trained
    assert check(network(nameless), {"t": right}, nameless) == []
    said = error(network(nameless), {"t": shuffled}, nameless)
    assert said.startswith("teacher t has no class names, and teacher t is right on ")
    assert " of 60 labelled samples, which is chance: its label order is probably another one" in said
    assert said.endswith("name them, load_model(module, classes=(...), mean=(...), std=(...))")


def test_names_on_one_side_alone_cannot_be_compared(nameless, trained):
    """The teacher knows its classes' names but the data do not: the order is tried all the same."""
    right, shuffled = trained
    for net in (right, shuffled):
        net.classes = tuple("abcd")
    try:
        assert check(network(nameless), {"t": right}, nameless) == []
        assert error(network(nameless), {"t": shuffled}, nameless).startswith(
            f"{nameless.name} has no class names, and teacher t"
        )
    finally:
        for net in (right, shuffled):
            net.classes = None


class Returns(nn.Module):
    """Flattened images through a linear layer, and then something."""

    def __init__(self, then, pixels=144):
        super().__init__()
        self.fc, self.then = nn.Linear(pixels, 4), then

    def forward(self, x):
        return self.then(self.fc(x.flatten(1)))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (Returns(lambda y: y, pixels=100), "fails on images of 1x12x12 (mat1 and mat2 shapes cannot be multiplied"),
        (Returns(lambda y: y).double(), "fails on images of 1x12x12 ("),
        (Returns(lambda y: y.sum(1)), "gives outputs of shape [2] for 2 images, where [2, 4] was expected"),
        (Returns(lambda y: y[:, None]), "gives outputs of shape [2, 1, 4] for 2 images, where [2, 4] was expected"),
        (Returns(lambda y: y / 0), "gives NaN or infinity for idx:"),
        (Returns(lambda y: {"logits": y}), "returns dict: give a module that returns its logits alone"),
    ],
)
def test_what_a_module_cannot_do_is_found_before_the_first_step(nameless, body, said):
    odd = load_model(body, channels=1)
    for student, teacher in ((odd, network(nameless)), (network(nameless), odd)):
        line = error(student, {"fresh:t": teacher}, nameless)
        assert said in line
        assert "\n" not in line


def test_a_teacher_with_a_new_head_knows_nothing_yet(data):
    line = error(network(data), {"head:zoo:cnn-s": network(data, "cnn-s")}, data)
    assert line.startswith(
        "teacher head:zoo:cnn-s has a new head, which knows nothing yet: fit it first, osmose transfer "
    )


def test_equal_weights_are_noted(data):
    twin, other = network(data), network(data, "vit-xs")
    assert check(network(data), {"t": twin, "o": other, "p": copy.deepcopy(other)}, data) == [
        "teacher t has the same weights as student fresh:zoo:cnn-xs: it has nothing to teach it",
        "teacher p has the same weights as teacher o: it has nothing to teach it",
    ]


def test_with_equal_names_nothing_is_tried(data, monkeypatch):
    monkeypatch.setattr("osmose.pair_check.predict", lambda *_: pytest.fail("tried"))
    assert check(network(data), {"t": network(data, "vit-xs")}, data) == []


def test_new_weights_are_not_tried(nameless, monkeypatch):
    monkeypatch.setattr("osmose.pair_check.predict", lambda *_: pytest.fail("tried"))
    assert check(network(nameless), {"fresh:zoo:vit-xs": network(nameless, "vit-xs")}, nameless) == []


def test_the_test_part_is_not_read(data, nameless, trained):
    for part, teacher in ((data, network(data)), (nameless, trained[0])):
        check(network(part), {"t": teacher}, replace(part, test=lambda: pytest.fail("the test part was read")))


def test_regression_has_no_classes_to_check(nameless):
    numbers = replace(nameless, num_classes=None, classes=None)
    check_head("student", network(nameless, num_classes=1), numbers)
