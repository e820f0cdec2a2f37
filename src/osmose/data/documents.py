"""The documents of a text in parts: training, held-out and test part, read anew whenever they are gone through."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, compress
from pathlib import Path
from typing import Any

import torch

from osmose.data.text import Document, document, read_documents, text_files
from osmose.errors import UserError, check, missing_extra
from osmose.random import generator

TEXT = "text:"
"""Begins the name of a text."""
PACKAGED = {name: Path(__file__).parent / "plays" / f"{name}.parquet" for name in ("comedies", "histories")}
"""Texts of the package, by name."""
HUB = "hf:"
"""Begins, behind that, the name of one on the hub."""
PARTS = ("train", "heldout", "test")
_NAMED = re.compile(r"(?:(train)|(test)|(valid|validation|val|dev|heldout))(?![a-z])", re.IGNORECASE)
"""How the names of files, or of folders with files, begin that are a part of their own."""


@dataclass(frozen=True)
class Documents:
    """Some documents in order, which are not held in memory.

    Args:
        read: reads them, from the first on.
        known: how many there are, where that is known beforehand.
    """

    read: Callable[[], Iterator[Document]]
    known: int | None = None

    @cached_property
    def count(self) -> int:
        """How many there are; all are read for it where it was not known."""
        return sum(1 for _ in self) if self.known is None else self.known

    def __iter__(self) -> Iterator[Document]:
        return self.read()

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None

    def subset(self, kept: list[bool]) -> "Documents":
        """Those for which `kept`, one entry a document, is true."""
        return Documents(lambda: compress(self, kept), sum(kept))


def split_documents(
    name: str,
    *,
    length: int,
    separator: str | None,
    heldout: float,
    test: float,
    split_seed: int,
    wanted: str = "",
) -> dict[str, Documents]:
    """The documents of each part, as the names of files say or else split off.

    Args:
        name: "text:PATH" or "text:hf:NAME".
        length: tokens of a block; only checked.
        separator: what divides a .txt file.
        heldout: share of the training documents to hold out, where no file is that part.
        test: share of all documents that is the test part, the same.
        split_seed: of the choice.
        wanted: "train", "heldout", "test" or "all": no more is split off than that part needs.

    Raises:
        UserError: for an unknown name, a setting out of range, files that are missing or damaged, or too few documents.
    """
    check(length >= 2, "data.length", length, "at least 2")
    check(0 <= heldout < 1, "data.heldout", heldout, "a share of at least 0 and below 1")
    check(0 < test < 1, "data.test", test, "a share between 0 and 1")
    parts = _named_parts(name, separator)
    if wanted == "all" or (wanted and parts[wanted]):
        return parts
    missing = [(part, share) for part, share in (("test", test), ("heldout", heldout)) if share and not parts[part]]
    if parts["train"].count <= len(missing):
        raise UserError(
            f"{name} has {parts['train'].count} documents for {1 + len(missing)} parts, training, held-out and test part: give "
            "more, say by data.separator what divides a file, or name files train..., valid... and test..."
        )
    for left, (part, share) in zip(range(len(missing), 0, -1), missing, strict=True):
        whole = parts["train"]
        count = min(max(1, round(whole.count * share)), whole.count - left)
        apart = torch.zeros(whole.count, dtype=torch.bool)
        apart[torch.randperm(whole.count, generator=generator(split_seed, f"text/{part}"))[:count]] = True
        parts["train"], parts[part] = whole.subset((~apart).tolist()), whole.subset(apart.tolist())
    return parts


def find_text(name: str) -> Path:
    """The file or folder of a text.

    Raises:
        UserError: when there is none. Names of the hub are not looked up.
    """
    place = name.removeprefix(TEXT)
    path = PACKAGED.get(place, Path(place).expanduser())
    if not place.startswith(HUB) and not path.exists():
        raise UserError(
            f"data set '{name}': there is no {path}; give a file or folder, {TEXT}{HUB}NAME of the hub, or one of "
            f"{', '.join(TEXT + packaged for packaged in PACKAGED)}"
        )
    return path


def identity(name: str) -> list[Any]:
    """Plain values that change when a text does: names, sizes and times of its files, or what the hub's library says of them."""
    place = name.removeprefix(TEXT)
    if place.startswith(HUB):
        return [[split, rows._fingerprint] for split, rows in _from_hub(place.removeprefix(HUB)).items()]
    return [[str(file.resolve()), *_state(file)] for file in text_files(find_text(name))]


def _named_parts(name: str, separator: str | None) -> dict[str, Documents]:
    """The documents by part, where files or the hub say so, otherwise all for training."""
    place = name.removeprefix(TEXT)
    sources: dict[str, list[Callable[[], Iterator[Document]]]] = {part: [] for part in PARTS}
    if place.startswith(HUB):
        for split, rows in _from_hub(place.removeprefix(HUB)).items():
            sources[_part(split)].append(partial(_filled, rows, f"{name}, {split}"))
    else:
        path = find_text(name)
        for file in text_files(path):
            first = (
                file.relative_to(path).parts[0] if path.is_dir() else ""
            )  # the file itself, or a folder of the text's
            sources[_part(first)].append(partial(_unchanged, file, _state(file), separator))
    return {part: Documents(partial(_one_after_another, found)) for part, found in sources.items()}


def _one_after_another(sources: Iterable[Callable[[], Iterator[Document]]]) -> Iterator[Document]:
    return chain.from_iterable(source() for source in sources)


def _state(file: Path) -> tuple[int, int]:
    """Size and time of a file."""
    try:
        about = file.stat()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    return about.st_size, about.st_mtime_ns


def _unchanged(file: Path, state: tuple[int, int], separator: str | None) -> Iterator[Document]:
    """The documents of a file that is as it was: which are of which part is told by their numbers."""
    if _state(file) != state:
        raise UserError(f"{file} has changed since the run began: start anew with --fresh")
    yield from read_documents(file, separator)


def _filled(rows: Iterable[Any], place: str) -> Iterator[Document]:
    """The rows of a split of the hub that are not empty."""
    for number, row in enumerate(rows, start=1):
        if str(row.get("text", "x")).strip():
            yield document(row, f"{place}, row {number}")


def _part(name: str) -> str:
    found = _NAMED.match(name)
    return "train" if found is None else ("train", "test", "heldout")[(found.lastindex or 1) - 1]


def _from_hub(name: str) -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise missing_extra("text of the hub needs", "language") from error
    path, _, configuration = name.partition(",")
    try:
        return datasets.load_dataset(path, configuration or None)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:  # RuntimeError: a script
        raise UserError(f"cannot load {TEXT}{HUB}{name}: {' '.join(str(error).split())[:300]}") from None
