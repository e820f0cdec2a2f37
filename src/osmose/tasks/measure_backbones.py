"""What features tell of classes: after each epoch on the held-out part, and at the end on the test part."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning_fabric import Fabric

from osmose.data.dataset import Dataset
from osmose.data.split import Split
from osmose.evaluate.attention_distance import attention_distances
from osmose.evaluate.feature_map import feature_map
from osmose.evaluate.features import features
from osmose.evaluate.neighbours import nearest_neighbours
from osmose.evaluate.readings import NEIGHBOURS, read_features, spread
from osmose.models.backbones import Backbones
from osmose.processes import all_reduce
from osmose.recipe import Recipe
from osmose.tasks.task import Measured, result_numbers

_SHOWN = 1000
"""Test samples of which features are drawn, and attention is looked at."""


class HeldOutNeighbours:
    """Accuracy of nearest neighbours on some of the held-out samples, by features of some of the training part.

    Args:
        student: gives the networks as they are now.
        train: the training part, with labels.
        heldout: held-out samples, with labels.
        fabric: processes share the work.
    """

    def __init__(self, student: Callable[[], Backbones], train: Split, heldout: Split, fabric: Fabric) -> None:
        self.student, self.fabric = student, fabric
        bank, asked = self.sizes(train, heldout)
        self.bank, self.asked = spread(train, bank), spread(heldout, asked)
        assert self.bank.labels is not None
        assert self.asked.labels is not None
        self.known, self.labels = self.bank.labels, self.asked.labels
        self.classes = int(max(self.known.max(), self.labels.max())) + 1

    @staticmethod
    def sizes(train: Split, heldout: Split) -> tuple[int, int]:
        """How many samples are remembered, and how many asked about."""
        return min(5000, len(train)), min(2000, len(heldout))

    def __call__(self) -> dict[str, float]:
        """The numbers; the first, the mean over networks, is the score to choose by."""
        fabric = self.fabric
        found = {}
        for role, network in self.student().members.items():
            bank, asked = (
                all_reduce(features(network, one, shard=fabric.global_rank, shards=fabric.world_size), "sum")
                for one in (self.bank, self.asked)
            )
            voted = nearest_neighbours(bank, self.known, asked, classes=self.classes, k=NEIGHBOURS[0])
            found[role] = 100 * voted.eq(self.labels).double().mean().item()
        numbers = {"heldout_neighbours": sum(found.values()) / len(found)}
        return numbers if len(found) == 1 else {**numbers, **{f"heldout_{r}": value for r, value in found.items()}}


def measure(
    recipe: Recipe, data: Dataset, initial: Backbones, students: Mapping[str, Backbones], device: torch.device
) -> Measured:
    """Neighbours and linear classifiers, before and after, on the test and the held-out part; and how far networks agree.

    Args:
        recipe: the run's recipe.
        data: the data.
        initial: the networks before the run.
        students: "after", those of the last epoch, and "chosen", those of the epoch with the best held-out score.
        device: where the networks run.
    """
    parts = {"test": data.test(), **({"heldout": data.heldout} if data.heldout else {})}
    unit = "percent of samples"
    if data.train.labels is None:
        nothing: dict[str, dict[str, Any]] = {
            part: {role: {"networks": {}, "samples": len(split)} for role in students} for part, split in parts.items()
        }
        return Measured(result_numbers(recipe, unit, nothing["test"], nothing.get("heldout", {})))
    shown = spread(parts["test"], _SHOWN)
    before = _read(initial, parts, data, device)
    # Where the last epoch is the chosen one, both are the same networks.
    read = {student: _read(student, parts, data, device) for student in dict.fromkeys(students.values())}
    measured: dict[str, dict[str, dict[str, Any]]] = {part: {} for part in parts}
    for role, student in students.items():
        after = read[student]
        for part, split in parts.items():
            networks = {
                name: {
                    **{f"{key}_before": value for key, value in before[part]["networks"][name].items()},
                    **{f"{key}_after": value for key, value in found.items()},
                }
                for name, found in after[part]["networks"].items()
            }
            means = {
                key: sum(network[key] for network in networks.values()) / len(networks)
                for key in ("neighbours_before", "neighbours_after", "probe_before", "probe_after")
            }
            agreement = {
                f"agreement_{when}": one[part]["agreement"] for when, one in (("before", before), ("after", after))
            }
            measured[part][role] = {
                "samples": len(split), **means, "networks": networks,
                **(agreement if agreement["agreement_after"] is not None else {}),
            }  # fmt: skip
    numbers = result_numbers(recipe, unit, measured["test"], measured.get("heldout", {})) | {"classes": data.classes}
    for when, student in (("before", initial), ("after", students["after"])):
        for name, network in student.members.items():
            numbers["networks"][name][f"attention_distance_{when}"] = attention_distances(network.to(device), shown)
    maps = {name: feature_map(features(network, shown)) for name, network in students["after"].members.items()}
    drawn = {name: places for name, places in maps.items() if places is not None}
    assert shown.labels is not None
    return Measured(numbers, {"map": {**drawn, "labels": shown.labels} if drawn else {}})


def _read(
    student: Backbones, parts: Mapping[str, Split], data: Dataset, device: torch.device
) -> dict[str, dict[str, Any]]:
    """By part: what is read from each network's features, and the share of samples for which the neighbours of two networks vote
    alike."""
    readings = {
        name: read_features(network.to(device), data.train, parts.get("heldout"), parts, classes=data.num_classes or 0)
        for name, network in student.members.items()
    }
    numbers: dict[str, dict[str, Any]] = {}
    for part in parts:
        votes = [found[part].neighbours[NEIGHBOURS[0]] for found in readings.values()]
        same = [(one == other).double().mean().item() for i, one in enumerate(votes) for other in votes[i + 1 :]]
        numbers[part] = {
            "networks": {name: found[part].numbers() for name, found in readings.items()},
            "agreement": 100 * sum(same) / len(same) if same else None,
        }
    return numbers
