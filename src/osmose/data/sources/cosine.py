"""The cosine of one number: a toy on which a student must guess what lies outside what it was shown (arXiv 2305.14890)."""

from pathlib import Path

import torch

from osmose.data.images import Decoding, MemoryImages
from osmose.data.sources.source import Parts, Source
from osmose.data.split import Split
from osmose.random import generator

REACH = 2.5
"""Training numbers are in -REACH to REACH, less than a period of 6.28; the paper gives no range. See docs/fidelity.md."""
TEST_REACH = 10.0


def open_cosine(folder: Path | None, decoding: Decoding) -> Parts:
    """10,000 training numbers in -2.5 to 2.5 and 100 test numbers in -10 to 10, evenly drawn, with their cosines as labels."""
    return Parts(_split("train", 10_000, REACH), None, test=lambda: _split("test", 100, TEST_REACH))


def _split(part: str, count: int, reach: float) -> Split:
    numbers = reach * (2 * torch.rand(count, generator=generator(0, f"cosine/{part}")) - 1)
    return Split(MemoryImages(numbers.view(-1, 1, 1, 1)), numbers.cos(), torch.arange(count))


SOURCE = Source(
    name="cosine",
    folder="none",
    description="cos(x) of 10,000 numbers in -2.5 to 2.5, tested on 100 in -10 to 10; regression",
    licence="none needed",
    available=lambda: True,
    open=open_cosine,
)
