"""The counter hash against splitmix64 in Python's integers, and its uniformity."""

import torch

from osmose.data.counter_hash import below, chance, counter_hash, splitmix64

MASK = 2**64 - 1


def plain_splitmix64(state: int) -> int:
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_splitmix64_gives_the_published_first_outputs():
    # seed 1234567: first outputs of Vigna's splitmix64.c
    state, gamma = torch.tensor([1234567, 1234567 - 0x61C8864680B583EB]), MASK
    assert [value & gamma for value in splitmix64(state).tolist()] == [6457827717110365317, 3203168211198807973]


def test_equals_the_chain_in_python_integers():
    index = torch.tensor([0, 1, 59_999, 2**40, -1])
    for seed, view, draw in ((0, 0, 0), (7, 3, 2), (2**64 - 5, 10**6, 9), (-3, 1, 1)):
        expected = []
        for i in index.tolist():
            state = plain_splitmix64(seed & MASK)
            for counter in (view, i & MASK, draw):
                state = plain_splitmix64(state ^ counter)
            expected.append(state)
        assert [value & MASK for value in counter_hash(seed, index, view, draw).tolist()] == expected


def test_does_not_depend_on_the_batch_and_draws_broadcast():
    index = torch.arange(100)
    together = counter_hash(5, index, 2, torch.arange(3)[:, None])
    assert together.shape == (3, 100)
    for draw in range(3):
        for i in (0, 17, 99):
            assert counter_hash(5, index[i : i + 1], 2, draw).item() == together[draw, i].item()


def test_every_counter_matters():
    index = torch.arange(1000)
    hashes = [counter_hash(s, index, v, d) for s in range(3) for v in range(3) for d in range(3)]
    assert len(torch.cat(hashes).unique()) == 27_000


def test_below_is_the_multiply_shift_of_the_upper_half():
    hashed = counter_hash(0, torch.arange(50), 0, 0)
    for n in (1, 9, 2**31):
        assert below(hashed, n).tolist() == [((h & MASK) >> 32) * n >> 32 for h in hashed.tolist()]
    ranges = torch.arange(1, 51)
    assert torch.equal(
        below(hashed, ranges), torch.cat([below(h[None], int(n)) for h, n in zip(hashed, ranges, strict=True)])
    )


def test_below_is_uniform_over_samples_views_and_draws():
    many = torch.arange(20_000)
    for hashed in (
        counter_hash(0, many, 0, 0),
        torch.cat([counter_hash(0, torch.arange(5), view, 0) for view in range(4000)]),
        counter_hash(0, torch.tensor([3]), 0, many),
    ):
        counts = below(hashed, 10).bincount(minlength=10).double()
        chi_square = ((counts - 2000) ** 2 / 2000).sum().item()
        assert 0.5 < chi_square < 30  # 9 degrees of freedom: outside this with probability below 0.001


def test_chance_has_its_probability():
    hashed = counter_hash(0, torch.arange(40_000), 0, 0)
    assert not chance(hashed, 0.0).any()
    assert chance(hashed, 1.0).all()
    assert abs(chance(hashed, 0.3).double().mean().item() - 0.3) < 4 * (0.3 * 0.7 / 40_000) ** 0.5
