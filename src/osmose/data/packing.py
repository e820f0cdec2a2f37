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
        learned: booleans [n], which of them are more than read; None: all, and the document may be cut.
    """

    ids: NDArray[np.int32]
    learned: NDArray[np.bool_] | None = None


Row = list[Tokens]
"""The documents of a block, or parts of them."""


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

    A document of which some is only read is not cut: it begins a new block where it no longer fits, and its end is dropped where
    it is longer than a block. The first token of a document, or of a part of one, is predicted from nothing and not learned.
    """
    row: Row = []
    room = length
    for document in documents:
        ids, learned = document.ids, document.learned
        if learned is not None and len(ids) > room and row:
            yield row
            row, room = [], length
        ids = ids if learned is None else ids[:length]
        while len(ids):
            if room == 0:
                yield row
                row, room = [], length
            part, ids = ids[:room], ids[room:]
            row.append(Tokens(part, None if learned is None else learned[: len(part)]))
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
        for owner, part in enumerate(row):
            end = start + len(part.ids)
            tokens[number, start:end] = part.ids
            owners[number, start:end] = owner
            learned[number, start + 1 : end] = True if part.learned is None else part.learned[1:]
            start = end
    return Blocks(tokens, owners, learned)
