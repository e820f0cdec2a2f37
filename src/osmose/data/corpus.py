"""Text as blocks of tokens: the training part, and passages on which language models are scored."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from osmose.data.documents import identity, split_documents
from osmose.data.inputs import MemoryInputs
from osmose.data.kept_blocks import fingerprint, kept_blocks
from osmose.data.lesson import Lesson, lesson
from osmose.data.packing import PADDING, Blocks, Tokens, fill, pack, rows
from osmose.data.split import Split
from osmose.data.text import Document
from osmose.errors import UserError, check
from osmose.losses.language import IGNORED
from osmose.random import generator

_LAST_WORD = re.compile(r"(\w[\w'\u2019-]*)\W*\Z")
_ENDING = 200
"""Characters at a text's end in which its last word is looked for."""
_SOME = 1000
"""Documents that are cut into tokens, and blocks that are filled, at a time."""


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
        cut: how many training documents with prompts were longer than a block: those that lost their end, "shortened"; and those
            of which nothing was left to be learned, "emptied", which are not there.
        fingerprint: hash of all blocks and labels of the training part, the same for every `fraction`.
    """

    name: str
    train: Split
    heldout: Passages | None
    test: Callable[[], Passages]
    content: tuple[Split, ...]
    documents: Mapping[str, int]
    cut: Mapping[str, int]
    fingerprint: str


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
    cache: str | None = None,
) -> Corpus:
    """The text `name`, cut into the tokens of a tokenizer; the settings are those of `osmose.recipe.Text`.

    Raises:
        UserError: for an unknown name, a setting out of range, files that are missing or damaged, too few documents, or a cache
            that cannot be written.
    """
    check(0 < fraction <= 1, "data.fraction", fraction, "a share above 0 and at most 1")
    cutting: dict[str, Any] = {
        "length": length, "separator": separator, "heldout": heldout, "test": test, "split_seed": split_seed,
    }  # fmt: skip
    parts = split_documents(name, **cutting)
    cut: Counter[str] = Counter()
    training = _training(parts["train"], tokenizer, length, cut)
    if cache is None:
        whole = _split(pack(training, length, padding=_end(tokenizer)))
        about: dict[str, Any] = {"fingerprint": fingerprint(whole), "cut": cut}
    else:
        filled = rows(training, length)
        some = iter(lambda: list(islice(filled, _SOME)), [])
        blocks = (_split(fill(each, length, padding=_end(tokenizer))) for each in some)
        key = {"format": 2, "text": identity(name), "tokenizer": _identity(tokenizer), **cutting}
        whole, about = kept_blocks(Path(cache).expanduser(), key, length, blocks, {"cut": cut})
    assert whole.labels is not None
    if not bool(learned(whole.labels).any()):
        raise UserError(
            f"nothing of {name} is to be learned: its documents have one token, or prompts fill their blocks"
        )
    train, scored = whole, parts["test"]
    if fraction < 1:
        count = max(1, round(len(whole) * fraction))
        kept = torch.randperm(len(whole), generator=generator(split_seed, "text/fraction"))[:count].sort().values
        train = whole.subset(kept)
    return Corpus(
        name=name,
        train=train,
        heldout=_passages(parts["heldout"], tokenizer, length) if parts["heldout"] else None,
        test=lambda: _passages(scored, tokenizer, length),
        content=(whole,),
        documents={part: each.count for part, each in parts.items()},
        cut=about["cut"],
        fingerprint=about["fingerprint"],
    )


def learned(labels: Tensor) -> Tensor:
    """How many positions of each block are to be learned, int64 [N] from labels [N, L]."""
    return torch.cat([some.ne(IGNORED).sum(1) for some in labels.split(_SOME)])


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
    given: dict[str, Any] = {
        "length": length, "separator": separator, "heldout": heldout, "test": test, "split_seed": split_seed,
    }  # fmt: skip
    parts = split_documents(name, **given, wanted=part) if part in ("test", "heldout", "all") else {}
    documents = list(chain(*parts.values())) if part == "all" else parts.get(part)
    if not documents:
        raise UserError(f"{name} has no part '{part}' to be scored on: use test, all, or heldout with data.heldout")
    return _passages(documents, tokenizer, length)


def check_text(name: str, **settings: Any) -> None:
    """Raise `UserError` where `load_passages` would not find the text's test part; nothing is cut into tokens."""
    split_documents(name, **settings, wanted="test")


@dataclass(frozen=True)
class _Read:
    """A document as a tokenizer read it: tokens, which of them are to be learned, which belong to its last word."""

    lesson: Lesson
    ids: NDArray[np.int32]
    learned: NDArray[np.bool_]
    last_word: NDArray[np.bool_]


def _tokenised(documents: Iterable[Document], tokenizer: Any) -> Iterator[_Read]:
    """Each document in turn; a token is to be learned where its last character is."""
    left = iter(documents)
    while some := list(islice(left, _SOME)):
        lessons = [lesson(one, tokenizer) for one in some]
        said = tokenizer(
            [one.text for one in lessons], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        for document, one, ids, offsets in zip(some, lessons, said["input_ids"], said["offset_mapping"], strict=True):
            begins, ends = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
            learned = np.zeros(len(ids), dtype=np.bool_)
            for begin, end in one.learned:
                learned |= ((ends > begin) | (begin == 0)) & (ends <= end)
            if not learned.any():
                raise UserError(f"{document.place}: its prompt leaves no token to be learned: leave it out")
            first, last = _last_word(one.text[: one.ending])
            word = (ends > max(first, one.learned[-1][0])) & (begins < last) & learned
            yield _Read(one, np.array(ids, dtype=np.int32), learned, word)


def _last_word(text: str) -> tuple[int, int]:
    """Where the last word of a text begins and ends."""
    start = max(0, len(text) - _ENDING)
    word = _LAST_WORD.search(text[start:])
    return (0, 0) if word is None else (start + word.start(1), start + word.end(1))


def _training(documents: Iterable[Document], tokenizer: Any, length: int, cut: Counter[str]) -> Iterator[Tokens]:
    """Documents as they are learned; what `Corpus.cut` says is counted on the way."""
    for read in _tokenised(documents, tokenizer):
        ids, learned = read.ids, read.learned
        if read.lesson.framed:
            ids = np.concatenate([[_start(tokenizer)], ids, [_end(tokenizer)]]).astype(np.int32)
            learned = np.concatenate([[True], learned, [True]])
        if learned.all():
            yield Tokens(ids)
        elif learned[1:length].any():
            cut["shortened"] += bool(learned[length:].any())
            yield Tokens(ids, learned)
        else:
            cut["emptied"] += 1


def _identity(tokenizer: Any) -> str:
    """Of everything that makes its tokens, but for the day that some chat templates write."""
    template = getattr(tokenizer, "chat_template", None)
    said = [
        tokenizer.backend_tokenizer.to_str(),
        _start(tokenizer),
        _end(tokenizer),
        tokenizer.special_tokens_map,
        template,
    ]
    return hashlib.sha256(repr(said).encode()).hexdigest()


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


def _passages(documents: Iterable[Document], tokenizer: Any, length: int) -> Passages:
    parts, last, words, size, number = [], [], 0, 0, -1
    for number, read in enumerate(_tokenised(documents, tokenizer)):
        first, skipped = _start(tokenizer), 0
        if read.lesson.framed:
            prompt = int(read.learned.argmax())
            skipped = max(0, prompt - max(0, length - 1 - (len(read.ids) - prompt)))  # of a long prompt its end is read
        else:  # a conversation has a first token of its own
            first, skipped = int(read.ids[0]), 1
        ids, learned, word = (values[skipped:] for values in (read.ids, read.learned, read.last_word))
        for start in range(0, len(ids), length - 1):
            end = start + length - 1
            begin = (
                max(0, len(ids) - length + 1) if end >= len(ids) else start
            )  # before the last part as much is read as fits
            cut, scored = slice(begin, end), learned[begin:end] & (np.arange(begin, min(end, len(ids))) >= start)
            parts.append(Tokens(_behind(first, ids[cut]), _behind(False, scored)))
            last.append(_behind(PADDING, np.where(word[cut], number, PADDING)))
        words += sum(len(text.split()) for text in read.lesson.learned_text)
        size += sum(len(text.encode()) for text in read.lesson.learned_text)
    blocks = pack(parts, length, padding=_end(tokenizer))
    owners = np.full(blocks.tokens.shape, PADDING, dtype=np.int64)
    owners[blocks.documents != PADDING] = np.concatenate(last)
    split = _split(blocks)
    assert split.labels is not None
    last_word = torch.full(split.labels.shape, PADDING)
    last_word[:, :-1] = torch.from_numpy(owners)[:, 1:]
    last_word[split.labels == IGNORED] = PADDING
    return Passages(split, words, size, number + 1, last_word)


def _behind(first: int | bool, values: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([np.array([first], dtype=values.dtype), values])


def _split(blocks: Blocks) -> Split:
    tokens, documents = torch.from_numpy(blocks.tokens), torch.from_numpy(blocks.documents)
    labels = torch.full_like(tokens, IGNORED)
    labels[:, :-1] = torch.where(torch.from_numpy(blocks.learned)[:, 1:], tokens[:, 1:], IGNORED)
    return Split(MemoryInputs(torch.stack([tokens, documents], dim=1)), labels, torch.arange(len(tokens)))
