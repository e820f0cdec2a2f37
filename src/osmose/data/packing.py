"""Documents of tokens side by side in blocks of one length."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PADDING = -1
"""The document of a position that holds none."""


@dataclass(frozen=True)
class Blocks:
    """Tokens in rows of one length.

    Attributes:
        tokens: int32 [n, length].
        documents: int32 [n, length], which of the row's documents a token belongs to, from 0; -1 where there is none.
        learned: booleans [n, length]: whether the token is to be predicted from those before it in its document.
    """

    tokens: NDArray[np.int32]
    documents: NDArray[np.int32]
    learned: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Tokens:
    """A document as tokens.

    Attributes:
        ids: int32 [n].
        prompt: how many of them are only read.
    """

    ids: NDArray[np.int32]
    prompt: int = 0


Row = list[tuple[NDArray[np.int32], int]]
"""The documents of a block, or parts of them, and how many tokens of each are only read."""


def pack(documents: Iterable[Tokens], length: int, *, padding: int) -> Blocks:
    """One document after another, cut where a block is full; see `rows`.

    Args:
        documents: in order.
        length: positions in a block.
        padding: the token at positions that hold none.
    """
    return fill(list(rows(documents, length)), length, padding=padding)


def rows(documents: Iterable[Tokens], length: int) -> Iterator[Row]:
    """What each block holds, one block after another.

    A document with a prompt is not cut: it begins a new block where it no longer fits, and its end is dropped where it is
    longer than a block. The first token of a document, or of a part of one, is predicted from nothing and so is not learned.
    """
    row: Row = []
    room = length
    for document in documents:
        ids, prompt = document.ids, document.prompt
        if prompt and len(ids) > room and row:
            yield row
            row, room = [], length
        ids = ids[:length] if prompt else ids
        while len(ids):
            if room == 0:
                yield row
                row, room = [], length
            part, ids = ids[:room], ids[room:]
            row.append((part, prompt))
            room -= len(part)
    if row:
        yield row


def fill(rows: Sequence[Row], length: int, *, padding: int) -> Blocks:
    """Blocks that hold these rows."""
    tokens = np.full((len(rows), length), padding, dtype=np.int32)
    owners = np.full((len(rows), length), PADDING, dtype=np.int32)
    learned = np.zeros((len(rows), length), dtype=np.bool_)
    for number, row in enumerate(rows):
        start = 0
        for owner, (part, prompt) in enumerate(row):
            end = start + len(part)
            tokens[number, start:end] = part
            owners[number, start:end] = owner
            learned[number, start + max(1, prompt) : end] = True
            start = end
    return Blocks(tokens, owners, learned)
