"""What models answer on one part of a data set: computed, or read from files that came from elsewhere."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from osmose.candidates import Model, best_device, expanded, labelled_part, load_candidates
from osmose.data import Dataset
from osmose.errors import UserError, missing_extra
from osmose.evaluate import predict
from osmose.evaluate.readings import check_features, votes
from osmose.files import cannot_write, write_atomically
from osmose.models.network import Network

LOGITS = "logits:"
"""How a file of logits is named among models."""


@dataclass
class Answers:
    """Logits of several models on the same samples.

    Attributes:
        logits: float32 [n, c] by model.
        labels: int64 [n].
        numbers: int64 [n], the samples' numbers in their part.
        classes: names of the c classes.
        about: what is known of each model beside its answers: "by" what it answers (its classifier, neighbours, a file), and
            "parameters".
        given: what models are called here, by what they were given as.
    """

    logits: dict[str, Tensor]
    labels: Tensor
    numbers: Tensor
    classes: tuple[str, ...]
    about: dict[str, dict[str, Any]]
    given: dict[str, str] = field(default_factory=dict)


def ask(models: Sequence[Model], data: Dataset | None, part: str, *, features: bool = False) -> Answers:
    """One pass of every network over the part, and the files as they are.

    For a network without a classifier, the nearest training samples in its features answer: its logits are the logarithms of
    their votes.

    Args:
        models: names, modules, and files "logits:PATH" as `write` makes them.
        data: the data; None when all models are files, which then need labels.
        part: "test", "heldout" or "train".
        features: let neighbours answer for all networks.

    Raises:
        UserError: when a network does not fit the data, or a file is of other samples, labels or classes.
    """
    files = [model for model in models if isinstance(model, str) and model.startswith(LOGITS)]
    networks = [model for model in models if not (isinstance(model, str) and model.startswith(LOGITS))]
    found: Answers | None = None
    if data is None and networks:
        raise UserError("networks need images to answer: give --data, or logits files alone")
    if data is not None:
        if data.num_classes is None:
            raise UserError(f"{data.name} has numbers for labels: compare is of classes; use osmose evaluate")
        split = labelled_part(data, part)
        assert split.labels is not None
        classes = data.classes or tuple(map(str, range(data.num_classes)))
        found = Answers({}, split.labels, split.index, classes, {})

        def by_head(network: Network) -> bool:
            return bool(network.num_classes) and not features

        candidates = load_candidates(networks, data, head=by_head) if networks else {}
        if not all(map(by_head, candidates.values())):
            check_features(data, part)
        for name, network in candidates.items():
            network.to(best_device())
            asks_head = by_head(network)
            found.logits[name] = predict(network, split) if asks_head else votes(network, data, split).log()
            found.about[name] = {
                "by": "its classifier" if asks_head else "neighbours",
                "parameters": sum(parameter.numel() for parameter in network.parameters()),
            }
            network.cpu()
        found.given |= dict(zip(map(str, expanded(networks)), candidates, strict=True))
    for file in files:
        read = _read(Path(file.removeprefix(LOGITS)), found)
        if found is None:
            found = read
        found.logits |= read.logits
        found.about |= read.about
        found.given |= dict.fromkeys([file], *read.logits)
    if found is None:
        raise UserError("no models: give two or more")
    return found


def write(answers: Answers, folder: Path) -> list[Path]:
    """One parquet file a model: sample, label and logits; the class names are in its metadata.

    Raises:
        UserError: when pyarrow is missing or the folder cannot be written.
    """
    arrow, parquet = _pyarrow()
    paths: list[Path] = []
    for name, logits in answers.logits.items():
        table = arrow.table({
            "sample": answers.numbers.numpy(),
            "label": answers.labels.numpy(),
            "logits": arrow.array(list(logits.numpy())),
        }).replace_schema_metadata({"classes": json.dumps(answers.classes)})  # fmt: skip
        path = folder / f"{name.replace('/', '_').replace(':', '-')}.parquet"
        if path in paths:
            path = path.with_stem(f"{path.stem}-{len(paths) + 1}")
        paths.append(path)
        content = io.BytesIO()
        parquet.write_table(table, content)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder, error) from error
        write_atomically(path, content.getbuffer())
    return paths


def _read(path: Path, others: Answers | None) -> Answers:
    """A file of logits, checked against what is known of the samples."""
    arrow, parquet = _pyarrow()
    try:
        table = parquet.read_table(path)
    except FileNotFoundError:
        raise UserError(f"there is no file '{path}': check the path") from None
    except (OSError, arrow.ArrowInvalid) as error:
        raise UserError(f"'{path}' is not a parquet file: {' '.join(str(error).split())}") from None
    if "logits" not in table.column_names:
        raise UserError(
            f"'{path}' has no column 'logits' (a list of numbers a row): its columns are {table.column_names}"
        )
    logits = _matrix(table["logits"].combine_chunks(), path)
    columns = {name: _whole(table[name], path, name) for name in ("label", "sample") if name in table.column_names}
    names = json.loads((table.schema.metadata or {}).get(b"classes", b"null"))
    if others is None:
        if "label" not in columns:
            raise UserError(f"'{path}' has no column 'label': give --data, whose labels are taken")
        classes = tuple(names or map(str, range(logits.shape[1])))
        others = Answers({}, columns["label"], columns.get("sample", torch.arange(len(logits))), classes, {})
    if logits.shape != (len(others.labels), len(others.classes)):
        raise UserError(
            f"'{path}' has logits of {logits.shape[0]} samples and {logits.shape[1]} classes, the others have "
            f"{len(others.labels)} and {len(others.classes)}: give files of the same samples"
        )
    if names is not None and tuple(names) != others.classes:
        raise UserError(
            f"'{path}' has the classes {', '.join(names)}, the others {', '.join(others.classes)}: put them in order"
        )
    if int(others.labels.min()) < 0 or int(others.labels.max()) >= logits.shape[1]:
        raise UserError(f"'{path}' has labels that are none of its {logits.shape[1]} classes: number them from 0")
    for name, known in (("label", others.labels), ("sample", others.numbers)):
        if name in columns and not torch.equal(columns[name], known):
            raise UserError(
                f"'{path}' has another column '{name}' than the rest: give files of the same samples in order"
            )
    name = path.stem if path.stem not in others.logits else str(path)
    return Answers(
        {name: logits}, others.labels, others.numbers, others.classes, {name: {"by": "file", "parameters": None}}
    )


def _matrix(column: Any, path: Path) -> Tensor:
    """float32 [n, c] from a column of lists."""
    wrong = UserError(f"'{path}': the column 'logits' must hold equally long lists of finite numbers")
    try:
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    except (AttributeError, TypeError, ValueError):
        raise wrong from None
    if not len(lengths) or not (lengths == lengths[0]).all() or not np.isfinite(values).all():
        raise wrong
    return torch.from_numpy(values.reshape(len(lengths), -1))


def _whole(column: Any, path: Path, name: str) -> Tensor:
    """int64 [n] from a column of whole numbers."""
    values = column.to_numpy()
    if values.dtype.kind not in "iu":
        raise UserError(f"'{path}': the column '{name}' must hold a whole number in each row")
    return torch.from_numpy(values.astype(np.int64))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise missing_extra("files of logits need", "study") from error
    return pyarrow, pyarrow.parquet
