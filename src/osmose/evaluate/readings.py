"""What can be read of classes from a network's features, by its neighbours and by a linear classifier."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from osmose.data.dataset import Dataset
from osmose.data.split import Split
from osmose.errors import UserError
from osmose.evaluate.features import features
from osmose.evaluate.linear_probe import linear_probe
from osmose.evaluate.neighbours import neighbours_votes
from osmose.models.network import Network

NEIGHBOURS = (20, 10, 30)
"""k, the first of which is the one that counts."""
BANK = 50_000
"""Training samples that are remembered, where nobody says how many."""
_LEAST = 1e-8
"""What a class has for which nobody votes; a vote is at least 6e-7."""


@dataclass(frozen=True)
class Reading:
    """Classes that were read for the samples of a part.

    Attributes:
        neighbours: int64 [m] for each k.
        probe: int64 [m].
        labels: int64 [m], the true ones.
    """

    neighbours: Mapping[int, Tensor]
    probe: Tensor
    labels: Tensor

    def numbers(self) -> dict[str, float]:
        """The accuracies, in percent."""
        first, *others = self.neighbours
        answers = {
            "neighbours": self.neighbours[first],
            **{f"neighbours_{k}": self.neighbours[k] for k in others},
            "probe": self.probe,
        }
        return {key: 100 * (one == self.labels).double().mean().item() for key, one in answers.items()}


def read_features(
    network: Network,
    train: Split,
    heldout: Split | None,
    asked: Mapping[str, Split],
    *,
    classes: int,
    bank: int = BANK,
) -> dict[str, Reading]:
    """Classes of samples, read from features given those of the training part.

    Args:
        network: where it is.
        train: samples with labels.
        heldout: those by which the linear classifier's weight decay is chosen.
        asked: labelled samples, by part.
        classes: number of classes.
        bank: how many training samples are remembered, evenly spread.
    """
    remembered = spread(train, bank)
    assert remembered.labels is not None
    known = features(network, remembered)
    seen = {part: features(network, split) for part, split in asked.items()}
    chooses = None
    if heldout is not None and heldout.labels is not None:
        own = next((seen[part] for part, split in asked.items() if split is heldout), None)
        chooses = features(network, heldout) if own is None else own, heldout.labels
    probe = linear_probe(known, remembered.labels, chooses, classes=classes, device=network.device)
    readings = {}
    for part, split in asked.items():
        assert split.labels is not None
        voted = neighbours_votes(known, remembered.labels, seen[part], classes=classes, numbers=NEIGHBOURS)
        chosen = {k: found.argmax(-1) for k, found in voted.items()}
        readings[part] = Reading(chosen, probe(seen[part]), split.labels)
    return readings


def votes(network: Network, data: Dataset, asked: Split) -> Tensor:
    """Votes of each sample's nearest neighbours in the training part for the classes of the data, float32 [m, classes]."""
    bank = spread(data.train, BANK)
    assert bank.labels is not None
    assert data.num_classes is not None
    known, seen = features(network, bank), features(network, asked)
    (voted,) = neighbours_votes(known, bank.labels, seen, classes=data.num_classes, numbers=NEIGHBOURS[:1]).values()
    return voted.clamp_min(_LEAST)


def check_features(data: Dataset, part: str) -> None:
    """Raise a UserError where nothing can be read from features of a part of the data."""
    if data.train.labels is None or data.num_classes is None:
        raise UserError(f"{data.name} has no classes for its training part, by which features are read: give labels")
    if part == "train":
        raise UserError("features of part 'train' are read by themselves, which tells nothing: use --part heldout")


def spread(split: Split, most: int) -> Split:
    """At most so many samples of a split, evenly spread over it."""
    return split.subset(torch.linspace(0, len(split) - 1, most).long()) if len(split) > most else split
