"""The cosine of one number: a toy on which a student must guess what lies outside what it was shown (arXiv 2305.14890)."""

from pathlib import Path

import torch

from osmose.data.images import Decoding, MemoryImages
from osmose.data.sources.source import Parts, Source
from osmose.data.split import Split
from osmose.random import generator

REACH = 2.7
"""Training numbers are in -REACH to REACH, less than a period; the paper gives no range. With this one plain distillation
has the paper's error on the held-out numbers, 5.1."""
TEST_REACH = 10.0


def open_cosine(folder: Path | None, decoding: Decoding) -> Parts:
    """10,000 training numbers in -2.7 to 2.7, 1,000 held-out and 100 test numbers in -10 to 10, with their cosines as labels."""
    heldout = _split("heldout", 1_000, TEST_REACH)
    return Parts(_split("train", 10_000, REACH), None, heldout=heldout, test=lambda: _split("test", 100, TEST_REACH))


def _split(part: str, count: int, reach: float) -> Split:
    numbers = reach * (2 * torch.rand(count, generator=generator(0, f"cosine/{part}")) - 1)
    return Split(MemoryImages(numbers.view(-1, 1, 1, 1)), numbers.cos(), torch.arange(count))


SOURCE = Source(
    name="cosine",
    folder="none",
    description="cos(x) of 10,000 numbers in -2.7 to 2.7, tested on 100 in -10 to 10; regression",
    licence="none needed",
    available=lambda: True,
    open=open_cosine,
)
