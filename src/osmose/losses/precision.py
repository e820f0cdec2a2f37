"""Losses are computed in float32 or wider, whatever the networks run in."""

from torch import Tensor


def widened(logits: Tensor) -> Tensor:
    """The logits in float32 where their type is narrower, else as they are."""
    return logits.float() if logits.dtype.itemsize < 4 else logits
