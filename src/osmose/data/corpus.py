"""Text as blocks of tokens: the training part, and passages on which language models are scored."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from osmose.data.inputs import MemoryInputs
from osmose.data.packing import PADDING, Blocks, Tokens, pack
from osmose.data.split import Split
from osmose.data.text import Document, document, read_documents, text_files
from osmose.errors import UserError, check, missing_extra
from osmose.losses.language import IGNORED
from osmose.random import generator

TEXT = "text:"
"""Begins the name of a text."""
PACKAGED = {name: Path(__file__).parent / "plays" / f"{name}.parquet" for name in ("comedies", "histories")}
"""Texts of the package, by name."""
HUB = "hf:"
"""Begins, behind that, the name of one on the hub."""
_PARTS = re.compile(r"(?:(train)|(test)|(valid|validation|val|dev|heldout))(?![a-z])", re.IGNORECASE)
"""How the names of files, or of folders with files, begin that are a part of their own."""
_LAST_WORD = re.compile(r"(\w[\w'\u2019-]*)\W*\Z")
_ENDING = 200
"""Characters at a text's end in which its last word is looked for."""
_SOME = 1000
"""Documents that are cut into tokens at a time."""


@dataclass(frozen=True)
class Passages:
    """Documents to be scored, every token of them but what is only read exactly once.

    A document longer than a block is cut, and each part begins with the token that stands before every document; before the
    last part as much of the document is read as fits.

    Attributes:
        split: blocks, and the labels of their positions.
        words, bytes: how many of them the scored text has, words divided by white space, bytes in UTF-8.
        documents: how many there are.
        last_word: int64 [N, L]: the number of the document of whose last word the label is a token, or -1.
    """

    split: Split
    words: int
    bytes: int
    documents: int
    last_word: Tensor


@dataclass(frozen=True)
class Corpus:
    """Text as a run uses it.

    Attributes:
        name: the name it was loaded by.
        train: what may be learned from; of each position the label is the token behind it, or -100.
        heldout: what choices are made on; None when nothing is held out.
        test: cuts the test part into tokens; nothing of it is scored before the call.
        content: the whole training part.
        documents: how many each part has, by "train", "heldout" and "test".
    """

    name: str
    train: Split
    heldout: Passages | None
    test: Callable[[], Passages]
    content: tuple[Split, ...]
    documents: Mapping[str, int]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all blocks and labels of the training part, the same for every `fraction`."""
        (whole,) = self.content
        assert whole.labels is not None
        return hashlib.sha256(whole.inputs.digest() + whole.labels.numpy().tobytes()).hexdigest()


def load_text(
    name: str,
    tokenizer: Any,
    *,
    length: int = 512,
    separator: str | None = None,
    heldout: float = 0.05,
    test: float = 0.05,
    fraction: float = 1.0,
    split_seed: int = 0,
) -> Corpus:
    """The text `name`, cut into the tokens of a tokenizer; the settings are those of `osmose.recipe.Text`.

    Raises:
        UserError: for an unknown name, a setting out of range, files that are missing or damaged, or too few documents.
    """
    check(0 < fraction <= 1, "data.fraction", fraction, "a share above 0 and at most 1")
    parts = _documents(name, length, separator, heldout, test, split_seed)
    blocks = pack((_training(ids, prompt, tokenizer) for ids, prompt, _ in _tokenised(parts["train"], tokenizer)),
                  length, padding=_end(tokenizer))  # fmt: skip
    whole, scored = _split(blocks), parts["test"]
    train = whole
    if fraction < 1:
        count = max(1, round(len(whole) * fraction))
        rows = torch.randperm(len(whole), generator=generator(split_seed, "text/fraction"))[:count].sort().values
        train = whole.subset(rows)
    assert whole.labels is not None
    if not bool(whole.labels.ne(IGNORED).any()):
        raise UserError(
            f"nothing of {name} is to be learned: its documents have one token, or prompts fill their blocks"
        )
    return Corpus(
        name=name,
        train=train,
        heldout=_passages(parts["heldout"], tokenizer, length) if parts["heldout"] else None,
        test=lambda: _passages(scored, tokenizer, length),
        content=(whole,),
        documents={part: len(found) for part, found in parts.items()},
    )


def load_passages(
    name: str,
    tokenizer: Any,
    part: str = "test",
    *,
    length: int = 512,
    separator: str | None = None,
    heldout: float = 0.05,
    test: float = 0.05,
    split_seed: int = 0,
) -> Passages:
    """The test or held-out part that `load_text` gives with these settings, or "all", without cutting the rest into tokens.

    Raises:
        UserError: as `load_text`, and when there is no such part.
    """
    parts = _documents(name, length, separator, heldout, test, split_seed, wanted=part)
    documents = [one for each in parts.values() for one in each] if part == "all" else parts.get(part)
    if not documents or part == "train":
        raise UserError(f"{name} has no part '{part}' to be scored on: use test, all, or heldout with data.heldout")
    return _passages(documents, tokenizer, length)


def check_text(name: str, *, length: int, separator: str | None, heldout: float, test: float, split_seed: int) -> None:
    """Raise `UserError` where `load_passages` would not find the text's test part; nothing is cut into tokens."""
    _documents(name, length, separator, heldout, test, split_seed, wanted="test")


def _documents(
    name: str,
    length: int,
    separator: str | None,
    heldout: float,
    test: float,
    split_seed: int,
    wanted: str = "",
) -> dict[str, list[Document]]:
    """The documents of each part, as the files say or else split off; no more is split off than the part that is wanted needs."""
    check(length >= 2, "data.length", length, "at least 2")
    check(0 <= heldout < 1, "data.heldout", heldout, "a share of at least 0 and below 1")
    check(0 < test < 1, "data.test", test, "a share between 0 and 1")
    parts = _parts(name, separator)
    if wanted == "all" or parts.get(wanted):
        return parts
    missing = [(part, share) for part, share in (("test", test), ("heldout", heldout)) if share and not parts[part]]
    if len(parts["train"]) <= len(missing):
        raise UserError(
            f"{name} has {len(parts['train'])} documents for {1 + len(missing)} parts, training, held-out and test part: give "
            "more, say by data.separator what divides a file, or name files train..., valid... and test..."
        )
    for part, share in missing:
        most = len(parts["train"]) - len(missing)
        parts["train"], parts[part] = _split_off(parts["train"], share, most, generator(split_seed, f"text/{part}"))
    return parts


def _parts(name: str, separator: str | None) -> dict[str, list[Document]]:
    """The documents of a text by part, where its files or the hub say so."""
    parts: dict[str, list[Document]] = {"train": [], "heldout": [], "test": []}
    place = name.removeprefix(TEXT)
    if place.startswith(HUB):
        for split, rows in _from_hub(place.removeprefix(HUB)).items():
            filled = ((number, row) for number, row in enumerate(rows, start=1) if str(row.get("text", "x")).strip())
            parts[_part(split)] += [document(row, f"{name}, {split}, row {number}") for number, row in filled]
        return parts
    path = find_text(name)
    for file in text_files(path):
        first = file.relative_to(path).parts[0] if path.is_dir() else ""  # the file itself, or a folder of the text's
        parts[_part(first)] += read_documents(file, separator)
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


def _part(name: str) -> str:
    found = _PARTS.match(name)
    return "train" if found is None else ("train", "test", "heldout")[(found.lastindex or 1) - 1]


def _from_hub(name: str) -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise missing_extra("text of the hub needs", "language") from error
    path, _, configuration = name.partition(",")
    try:
        return datasets.load_dataset(path, configuration or None)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"cannot load {TEXT}{HUB}{name}: {' '.join(str(error).split())[:300]}") from None


def _split_off(
    documents: list[Document], share: float, most: int, draws: torch.Generator
) -> tuple[list[Document], list[Document]]:
    """The rest of the documents, and a share of them, at least one and at most `most`; both in order."""
    count = min(max(1, round(len(documents) * share)), most)
    apart = set(torch.randperm(len(documents), generator=draws)[:count].tolist())
    return (
        [one for place, one in enumerate(documents) if place not in apart],
        [one for place, one in enumerate(documents) if place in apart],
    )


def _tokenised(
    documents: Sequence[Document], tokenizer: Any
) -> Iterable[tuple[NDArray[np.int32], int, NDArray[np.bool_]]]:
    """Each document's tokens, how many of them are its prompt, and which belong to its last word."""
    for start in range(0, len(documents), _SOME):
        some = documents[start : start + _SOME]
        said = tokenizer(
            [one.prompt + one.text for one in some],
            add_special_tokens=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        for one, ids, offsets in zip(some, said["input_ids"], said["offset_mapping"], strict=True):
            ends = np.array([end for _, end in offsets], dtype=np.int64)
            begins = np.array([begin for begin, _ in offsets], dtype=np.int64)
            prompt = int((ends <= len(one.prompt)).sum()) if one.prompt else 0
            if prompt >= len(ids):
                raise UserError(f"{one.place}: its prompt leaves no token to be learned: leave it out")
            first, last = _last_word(one.prompt + one.text)
            yield np.array(ids, dtype=np.int32), prompt, (ends > max(first, len(one.prompt))) & (begins < last)


def _last_word(text: str) -> tuple[int, int]:
    """Where the last word of a text begins and ends."""
    start = max(0, len(text) - _ENDING)
    word = _LAST_WORD.search(text[start:])
    return (0, 0) if word is None else (start + word.start(1), start + word.end(1))


def _training(ids: NDArray[np.int32], prompt: int, tokenizer: Any) -> Tokens:
    whole = np.concatenate([[_start(tokenizer)], ids, [_end(tokenizer)]]).astype(np.int32)
    return Tokens(whole, prompt + 1 if prompt else 0)


def _start(tokenizer: Any) -> int:
    """The token before every document: the beginning of a sequence, or its end where there is no such token."""
    token = tokenizer.bos_token_id
    return _end(tokenizer) if token is None else int(token)


def _end(tokenizer: Any) -> int:
    """The token behind every document."""
    token = tokenizer.eos_token_id
    if token is None:
        raise UserError("the tokenizer has no token for the end of a text: set tokenizer.eos_token")
    return int(token)


def _passages(documents: Sequence[Document], tokenizer: Any, length: int) -> Passages:
    parts, last = [], []
    for number, (ids, prompt, word) in enumerate(_tokenised(documents, tokenizer)):
        read = min(prompt, max(0, length - 1 - (len(ids) - prompt)))  # of a long prompt its end
        ids, word = ids[prompt - read :], word[prompt - read :]
        for start in range(0, len(ids), length - 1):
            end = start + length - 1
            begin = (
                max(0, len(ids) - length + 1) if end >= len(ids) else start
            )  # before the last part as much is read as fits
            cut, known = slice(begin, end), max(0, max(read, start) - begin)
            parts.append(Tokens(np.concatenate([[_start(tokenizer)], ids[cut]]).astype(np.int32), 1 + known))
            last.append(np.concatenate([[PADDING], np.where(word[cut], number, PADDING)]))
    blocks = pack(parts, length, padding=_end(tokenizer))
    owners = np.full(blocks.tokens.shape, PADDING, dtype=np.int64)
    owners[blocks.documents != PADDING] = np.concatenate(last)
    split = _split(blocks)
    assert split.labels is not None
    last_word = torch.full(split.labels.shape, PADDING)
    last_word[:, :-1] = torch.from_numpy(owners)[:, 1:]
    last_word[split.labels == IGNORED] = PADDING
    texts = [one.text for one in documents]
    return Passages(
        split,
        sum(len(text.split()) for text in texts),
        sum(len(text.encode()) for text in texts),
        len(texts),
        last_word,
    )


def _split(blocks: Blocks) -> Split:
    tokens, documents = torch.from_numpy(blocks.tokens), torch.from_numpy(blocks.documents)
    labels = torch.full_like(tokens, IGNORED)
    labels[:, :-1] = torch.where(torch.from_numpy(blocks.learned)[:, 1:], tokens[:, 1:], IGNORED)
    return Split(MemoryInputs(torch.stack([tokens, documents], dim=1)), labels, torch.arange(len(tokens)))
