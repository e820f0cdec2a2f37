"""The pair check: do these networks, these data and this method fit? Asked before the first step."""

from collections.abc import Mapping

import torch

from osmose.data.dataset import Dataset
from osmose.data.views import Views
from osmose.engine.method import Method
from osmose.errors import UserError, first_line
from osmose.evaluate import predict
from osmose.models.model import evaluating
from osmose.models.network import Network

_SAMPLES = 256
"""Labelled samples on which a network without class names is tried."""


def check_pair(student: Network, teachers: Mapping[str, Network], data: Dataset, method: Method) -> list[str]:
    """Raise for the first mismatch, with its cure; return notes on what was adapted.

    What is asked depends on `method.needs()`.

    Args:
        student: the network that trains.
        teachers: the teachers by the names the user gave.
        data: the data; of it only the training and the held-out part are read.
        method: the method.

    Raises:
        UserError: naming the mismatch and its cure.
    """
    needs = method.needs()
    if "labels" in needs and data.train.labels is None:
        raise UserError(
            f"the method needs labels and {data.name} is used without them: set data.labelled"
            + (f", or {method.without_labels}" if method.without_labels else "")
        )
    if data.task == "classification" and data.num_classes == 1 and data.train.labels is not None:
        raise UserError(f"{data.name} has one class, so that its labels tell nothing: give images of two or more")
    if "same classes" in needs and data.task == "regression":
        raise UserError(f"the method compares classes and {data.name} has numbers for labels: use method supervised")
    if "teacher" in needs and not teachers:
        raise UserError("the method needs a teacher: give --teacher; see `osmose show models`")
    everyone = {
        f"student {student.name}": student,
        **{f"teacher {name}": teacher for name, teacher in teachers.items()},
    }
    notes = []
    for who, network in everyone.items():
        notes += check_input(who, network, data)
        _try(who, network, data)
    check_head(f"student {student.name}", student, data)
    if not student.name.startswith(("fresh:", "head:")) and (right := _at_chance(student, data)):
        notes.append(
            f"student {student.name} is right on {right}, which is chance: it is untrained, or its label order is another one"
        )
    if "same outputs" in needs:
        for name, teacher in teachers.items():
            check_head(f"teacher {name}", teacher, data)
    digests = {who: network.digest() for who, network in everyone.items()}
    for who, digest in digests.items():
        same = next(other for other in digests if digests[other] == digest)
        if same != who:
            notes.append(f"{who} has the same weights as {same}: it has nothing to teach it")
    if data.task == "regression":
        notes.append(
            f"the labels of {data.name} are numbers: networks give one number, scored by the mean squared error"
        )
    if "same classes" in needs:
        for name, teacher in teachers.items():
            if name.startswith("head:"):
                raise UserError(
                    f"teacher {name} has a new head, which knows nothing yet: fit it first, {_fit(teacher, data.name)}"
                )
            _check_classes(f"teacher {name}", teacher, f"student {student.name}", student)
            check_head(f"teacher {name}", teacher, data)
            if not name.startswith("fresh:"):
                _check_order(f"teacher {name}", teacher, data)
    return notes


def check_input(who: str, network: Network, data: Dataset) -> list[str]:
    """Notes of how images are adapted to a network.

    Raises:
        UserError: when it does not take the data's images.
    """
    wants = network.preprocessing
    if wants is None:
        raise UserError(
            f"{who} takes no images, of which {data.name} consists: give another network, or data of its kind"
        )
    if wants.channels != data.channels and data.channels != 1:
        raise UserError(
            f"{who} takes {wants.channels} channel(s), {data.name} has {data.channels}: use a network made for "
            f"{data.channels} channels, for example a {_fresh(network)} trained by method supervised"
        )
    notes = []
    if wants.channels > data.channels:
        notes.append(f"{who} takes {wants.channels} channels: the one of {data.name} is repeated")
    if wants.crop_ratio < 1 and max(data.image_size) > 64:
        notes.append(f"{who} was evaluated with a central crop: data.crop_ratio {wants.crop_ratio} gives the same")
    if wants.size and tuple(wants.size) != tuple(data.image_size):
        height, width = wants.size
        notes.append(
            f"{who} takes {height}x{width} pixels: images of {data.image_size[0]}x{data.image_size[1]} are resized"
        )
    return notes


def _try(who: str, network: Network, data: Dataset) -> None:
    """One forward pass of two images: what a network cannot do is found before the first step."""
    two = data.train.subset(torch.tensor([0, len(data.train) - 1]))
    try:
        with evaluating(network):
            logits = network(Views.plain(two.inputs.read(torch.arange(2)).to(network.device))).logits
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{who} fails on images of {'x'.join(map(str, two.inputs.shape))} ({first_line(error)}): give a network that takes "
            "float32 images of this size, or load_model(module, size=...) with the size it takes"
        ) from error
    if network.num_classes and logits.shape != (2, network.num_classes):
        raise UserError(
            f"{who} gives outputs of shape {list(logits.shape)} for 2 images, where [2, {network.num_classes}] was expected: "
            "give a module that returns one row of logits an image"
        )
    if not logits.isfinite().all():
        raise UserError(f"{who} gives NaN or infinity for {data.name}: check its weights, mean and std")


def check_head(who: str, network: Network, data: Dataset) -> None:
    """Raise a UserError when a network's classes are not the data's.

    Args:
        who: how the message names the network.
        network: the network.
        data: the data.
    """
    if data.num_classes is None:
        if network.num_classes != 1:
            raise UserError(
                f"{who} has {network.num_classes} outputs and {data.name} one number a sample: {_cure(network, data.name)}"
            )
        return
    if network.num_classes != data.num_classes:
        raise UserError(
            f"{who} knows {network.num_classes} classes, {data.name} has {data.num_classes}: {_cure(network, data.name)}"
        )
    if network.classes and data.classes and network.classes != data.classes:
        raise UserError(_classes_differ(who, network, data.name, data.classes, data.name))


def _check_classes(who: str, teacher: Network, whose: str, student: Network) -> None:
    if teacher.num_classes != student.num_classes:
        raise UserError(
            f"{who} knows {teacher.num_classes} classes, {whose} {student.num_classes}: {_cure(teacher, '...')}"
        )
    if teacher.classes and student.classes and teacher.classes != student.classes:
        raise UserError(_classes_differ(who, teacher, whose, student.classes, "..."))


def _cure(network: Network, data: str) -> str:
    if network.architecture is None:
        return "give data of its classes, or give the module a head for these and train it first"
    return f"give data of its classes, or fit a new head first, {_fit(network, data)}"


def _fit(network: Network, data: str) -> str:
    """The command that fits a new head."""
    name = network.name.removeprefix("fresh:").removeprefix("head:")
    return f"osmose transfer --method supervised --method.train head --student head:{name} --data {data}"


def _fresh(network: Network) -> str:
    """The name of the network's architecture with new weights, which takes the data's channels."""
    built = network.architecture
    return f"fresh:{built['source']}:{built['name']}" if built else "fresh:zoo:NAME"


def _classes_differ(who: str, network: Network, whose: str, classes: tuple[str, ...], data: str) -> str:
    assert network.classes is not None
    if sorted(network.classes) == sorted(classes):
        what, reason = "the same classes in another order", "its logits would teach the wrong classes"
    else:
        missing = [name for name in classes if name not in network.classes]
        what, reason = f"other classes (it lacks {', '.join(missing[:3])})", "its logits mean something else"
    return f"{who} has {what} than {whose}, so {reason}: {_cure(network, data)}"


def _check_order(who: str, network: Network, data: Dataset) -> None:
    """Where names cannot be compared a network must do better than chance, which is what a wrong label order looks like."""
    right = _at_chance(network, data)
    if right:
        raise UserError(
            f"{who if not network.classes else data.name} has no class names, and {who} is right on {right}, which is chance: "
            "its label order is probably another one, or its preprocessing differs: "
            + (
                "name them, load_model(module, classes=(...), mean=(...), std=(...))"
                if network.architecture is None
                else _cure(network, data.name)
            )
        )


def _at_chance(network: Network, data: Dataset) -> str:
    """ "R of N labelled samples" where a network that cannot be checked by class names is no better than chance; else empty."""
    labelled = data.heldout or data.train
    if (network.classes and data.classes) or data.num_classes is None or labelled.labels is None:
        return ""
    rows = torch.linspace(0, len(labelled) - 1, min(_SAMPLES, len(labelled))).long()
    sample = labelled.subset(rows)
    assert sample.labels is not None
    right = int((predict(network, sample).argmax(-1) == sample.labels).sum())
    chance = 1 / data.num_classes
    limit = len(rows) * chance + 3 * (len(rows) * chance * (1 - chance)) ** 0.5
    return f"{right} of {len(rows)} labelled samples" if right <= limit else ""
