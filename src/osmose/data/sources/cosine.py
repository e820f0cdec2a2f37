"""The cosine of one number: a toy on which a student must guess what lies outside what it was shown (arXiv 2305.14890)."""

from pathlib import Path

import torch

from osmose.data.images import Decoding
from osmose.data.inputs import MemoryInputs
from osmose.data.sources.source import Parts, Source
from osmose.data.split import Split
from osmose.random import generator

POINTS, REACH = 12, 2.9
"""Training numbers are so many points, evenly spaced from -REACH to REACH, less than a period. The paper does not give its own;
with these plain distillation (5.1), Mixup (3.6) and noise (3.4) come in its order and near its errors, on held-out numbers."""
TEST_REACH = 10.0


def open_cosine(folder: Path | None, decoding: Decoding) -> Parts:
    """10,000 training samples at 12 points in -2.9 to 2.9, 1,000 held-out and 100 test numbers in -10 to 10, with cosines."""
    points = torch.linspace(-REACH, REACH, POINTS)[torch.arange(10_000) % POINTS]
    return Parts(_split(points), None, heldout=_anywhere("heldout", 1_000), test=lambda: _anywhere("test", 100))


def _anywhere(part: str, count: int) -> Split:
    return _split(TEST_REACH * (2 * torch.rand(count, generator=generator(0, f"cosine/{part}")) - 1))


def _split(numbers: torch.Tensor) -> Split:
    return Split(MemoryInputs(numbers.view(-1, 1, 1, 1)), numbers.cos(), torch.arange(len(numbers)))


SOURCE = Source(
    name="cosine",
    folder="none",
    description="cos(x) at 12 points in -2.9 to 2.9, tested on 100 numbers in -10 to 10; regression",
    licence="none needed",
    available=lambda: True,
    open=open_cosine,
)
