"""Data sets by name: the training part and what is held out of it; the test part only when asked for."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

import torch

from osmose.data.images import Decoding, settle
from osmose.data.sources import SOURCES, find
from osmose.data.split import Split, stratified
from osmose.errors import UserError
from osmose.random import generator

__all__ = ["Dataset", "Split", "load_data", "show_data"]

TEST_SHARE = 0.2
"""Share of the samples that become the test part of a source that has none."""


@dataclass(frozen=True)
class Dataset:
    """A data set as a run uses it.

    Args:
        name: the name it was loaded by.
        classes: class names in label order; None when they are unknown, and for regression.
        num_classes: number of classes; None for regression.
        channels: 1 or 3.
        image_size: height and width.
        train: what may be learned from.
        heldout: what choices are made on; None when nothing is held out.
        test: reads the test part; nothing of it is read before the call.
        task: "classification" or "regression".
        content: the whole training part, with what is held out of it.
    """

    name: str
    classes: tuple[str, ...] | None
    num_classes: int | None
    channels: int
    image_size: tuple[int, int]
    train: Split
    heldout: Split | None
    test: Callable[[], Split]
    task: Literal["classification", "regression"]
    content: tuple[Split, ...]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the whole training part's content (pixels or encoded files, labels, sample numbers); the same for every
        `fraction`, every `heldout` and with labels dropped.
        """
        content = hashlib.sha256()
        for split in self.content:
            content.update(split.inputs.digest())
            content.update(_labels(split).numpy().tobytes())
            content.update(split.index.numpy().tobytes())
        return content.hexdigest()


def load_data(
    name: str,
    *,
    fraction: float = 1.0,
    split_seed: int = 0,
    labelled: bool = True,
    heldout: float = 0.1,
    image_size: int | None = None,
    crop_ratio: float = 1.0,
) -> Dataset:
    """The data set `name`; `osmose show data` lists what there is.

    Args:
        name: for example "fashion-mnist-mini" or "parquet:DIR".
        fraction: share of the training part to keep, with the same class proportions.
        split_seed: seed of every choice of samples.
        labelled: False drops the training labels; held-out and test part keep theirs.
        heldout: share of the training images to hold out, for sources that have no held-out part of their own.
        image_size: images of folders and parquet files are resized and centre-cropped to this many pixels a side.
        crop_ratio: share of the shorter side that the centre crop keeps.

    Raises:
        UserError: for an unknown name, a setting out of range, or files that are missing or foreign.
    """
    for key, valid, rule in (
        ("fraction", 0 < fraction <= 1, "above 0 and at most 1"),
        ("heldout", 0 <= heldout < 1, "at least 0 and below 1"),
        ("image_size", image_size is None or image_size > 0, "at least 1"),
        ("crop_ratio", 0 < crop_ratio <= 1, "above 0 and at most 1"),
    ):
        if not valid:
            raise UserError(f"data.{key} is out of range: set it {rule}")
    source, folder = find(name)
    parts = source.open(folder, Decoding(image_size, crop_ratio))

    whole, test = parts.train, parts.test
    if test is None:
        whole, rest = _split_off(whole, TEST_SHARE, split_seed, "data/test")
        test = partial(_settled, rest)
    whole = _settled(whole)
    train, held = whole, parts.heldout
    if held is None and heldout > 0:
        train, held = _split_off(whole, heldout, split_seed, "data/heldout")
    if fraction < 1:
        _, train = _split_off(train, fraction, split_seed, "data/fraction")

    labels = _labels(whole)
    task: Literal["classification", "regression"] = "regression" if labels.is_floating_point() else "classification"
    channels, height, width = whole.inputs.shape
    return Dataset(
        name=name,
        classes=parts.classes,
        num_classes=None if task == "regression" else len(parts.classes or ()) or int(labels.max()) + 1,
        channels=channels,
        image_size=(height, width),
        train=train if labelled else train.unlabelled(),
        heldout=held,
        test=test,
        task=task,
        content=(whole, *([parts.heldout] if parts.heldout else [])),
    )


def show_data() -> list[dict[str, Any]]:
    """Every source: its name, a description, the licence of its data, and whether it can be loaded now."""
    return [
        {"name": s.usage, "description": s.description, "licence": s.licence, "available": s.available()}
        for s in SOURCES.values()
    ]


def _split_off(split: Split, share: float, seed: int, stream: str) -> tuple[Split, Split]:
    """The rest of `split`, and a stratified `share` of it; neither is empty."""
    if len(split) < 2:
        raise UserError(f"a data set of {len(split)} training samples cannot be divided: give more")
    count = min(max(round(len(split) * share), 1), len(split) - 1)
    rows = stratified(_labels(split), count, generator(seed, stream))
    rest = torch.ones(len(split), dtype=torch.bool)
    rest[rows] = False
    return split.subset(rest.nonzero().flatten()), split.subset(rows)


def _labels(split: Split) -> torch.Tensor:
    assert split.labels is not None, "sources give labelled parts"
    return split.labels


def _settled(split: Split) -> Split:
    return replace(split, inputs=settle(split.inputs))
