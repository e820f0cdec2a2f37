"""Accuracy on many versions of a test set, in domain and out of it (arXiv 2305.14890, section 4 and appendix B)."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from osmose.data.domains import Domain
from osmose.data.views import Views
from osmose.evaluate.accuracy import accuracy
from osmose.evaluate.outcomes import outcomes
from osmose.models.model import Predictor, evaluating

Row = dict[str, Any]


def domain_accuracy(
    networks: Mapping[str, Predictor], domain: Domain, *, batch_size: int = 250, workers: int = 0
) -> dict[str, float]:
    """Percentage of a domain's samples on which each network is right; only the domain's own classes compete.

    Args:
        networks: by name, each on its device; they see the same images, in evaluation mode.
        domain: the samples.
        batch_size: samples in one forward pass.
        workers: processes that read and corrupt images.
    """
    answers: dict[str, list[Tensor]] = {name: [] for name in networks}
    with evaluating(*networks.values()):
        for images in DataLoader(domain, batch_size=batch_size, num_workers=workers):
            for name, network in networks.items():
                answers[name].append(network.answer(Views.plain(images.to(network.device))).cpu())
    columns = slice(None) if domain.columns is None else domain.columns
    return {
        name: accuracy(outcomes(networks[name], torch.cat(parts)[:, columns], domain.split))
        for name, parts in answers.items()
    }


def summarise(rows: Iterable[Row]) -> list[Row]:
    """For each model its accuracies, each the mean over the parts of a group, as the severities of a corruption.

    Args:
        rows: with the keys model, kind ("clean", "corrupted", "in_domain", "out_of_domain"), group, part and accuracy.

    Returns:
        For each model a row with "model" and "clean"; where there are any the mean over groups of "corrupted", of "in_domain" (of
        which the clean test part is one) and of "out_of_domain"; and then every group by name.
    """
    parts: dict[str, dict[tuple[str, str], list[float]]] = {}
    for row in rows:
        parts.setdefault(row["model"], {}).setdefault((row["kind"], row["group"]), []).append(row["accuracy"])
    found = []
    for model, groups in parts.items():
        means = {key: fmean(values) for key, values in groups.items()}
        kinds: dict[str, list[float]] = {}
        for (kind, _), value in means.items():
            kinds.setdefault(kind, []).append(value)
        if "in_domain" in kinds:
            kinds["in_domain"] += kinds["clean"]
        names = {group: value for (kind, group), value in means.items() if kind != "clean"}
        found.append({"model": model, **{kind: fmean(values) for kind, values in kinds.items()}, **names})
    return found


def gaps(summary: Sequence[Row]) -> list[Row]:
    """How many points each model is behind the first one, as rows of `summarise`."""
    first, *others = summary
    return [
        {"model": other["model"], **{key: first[key] - other[key] for key in first if key != "model"}}
        for other in others
    ]
