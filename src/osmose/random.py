"""Named random streams: pure functions of a seed, a name and counters, so that no module's draws shift another's."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_of(seed: int, name: str, *counters: int) -> int:
    """A 63-bit seed for the stream `name` at `counters` (for example step and shard).

    Args:
        seed: the run's seed.
        name: the stream's name, for example "student/init".
        counters: integers that tell one draw of the stream from the next.
    """
    text = "/".join([str(seed), name, *map(str, counters)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, name: str, *counters: int) -> torch.Generator:
    """A CPU generator at the start of the stream `name`."""
    return torch.Generator().manual_seed(seed_of(seed, name, *counters))


@contextmanager
def stream(seed: int, name: str, *counters: int) -> Iterator[None]:
    """Inside the block torch's global generators (CPU and current CUDA device) draw from the stream `name`.

    They are put back afterwards. Dropout and weight initialisation read the global generators, so this is how they become
    reproducible without keeping generator states in checkpoints.
    """
    start = seed_of(seed, name, *counters)
    generators = [torch.default_generator]
    if torch.cuda.is_initialized():
        generators.append(torch.cuda.default_generators[torch.cuda.current_device()])
    before = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(start)
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)
