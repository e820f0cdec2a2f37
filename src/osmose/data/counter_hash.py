"""Random integers as a pure function of counters: the same for any batch, process, worker and device."""

import torch
from torch import Tensor

GAMMA, MIX1, MIX2 = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
"""splitmix64's constants 9E3779B97F4A7C15, BF58476D1CE4E5B9, 94D049BB133111EB as signed 64-bit integers."""


def counter_hash(seed: int, index: Tensor, view: int, draw: int | Tensor) -> Tensor:
    """64 random bits of (seed, view, sample, draw): splitmix64 chained over the four.

    Args:
        seed: any integer, taken modulo 2**64.
        index: int64 sample numbers.
        view: number of the view.
        draw: tells the draws of one view apart; a tensor broadcasts against `index`.

    Returns:
        int64 in the broadcast shape, on the device of `index`.
    """
    state = splitmix64(splitmix64(_signed(seed)) ^ _signed(view))
    return splitmix64(splitmix64(state ^ index) ^ draw)


def splitmix64(state: Tensor) -> Tensor:
    """First output of splitmix64 (Steele, Lea, Flood 2014) from each int64 `state`."""
    z = state + GAMMA
    z = (z ^ _shift(z, 30)) * MIX1
    z = (z ^ _shift(z, 27)) * MIX2
    return z ^ _shift(z, 31)


def below(hashed: Tensor, n: int | Tensor) -> Tensor:
    """Integers in [0, n) from the upper 32 bits of `hashed` (multiply-shift); n is at most 2**31."""
    return (_shift(hashed, 32) * n) >> 32


def chance(hashed: Tensor, probability: float) -> Tensor:
    """True with `probability`, to within 2**-32."""
    return _shift(hashed, 32) < int(probability * 2**32)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> Tensor:
    return torch.tensor((value + 2**63) % 2**64 - 2**63)
