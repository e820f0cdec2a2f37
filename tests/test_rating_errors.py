"""Whether two methods of a study of ratings teach the same."""

import math
from statistics import fmean

import pytest
import torch

pytest.importorskip("pyarrow")
pytest.importorskip("scipy")


@pytest.fixture
def errors(benchmark_file):
    return benchmark_file("rating_errors")


def row(method, genre, decay, seed, heldout):
    settings = f"data.genre={genre}, method.optimiser.weight_decay={decay}"
    return {"method": method, "settings": settings, "seed": seed, "heldout_rmse_after": heldout, "name": (decay, seed)}


def test_the_best_settings_of_a_genre_on_its_held_out_part(errors):
    rows = [row("one", genre, decay, seed, value + 0.01 * seed) for genre, decay, value in
            (("War", 1, 1.0), ("War", 2, 0.9), ("Drama", 1, 0.1)) for seed in (0, 1)]  # fmt: skip
    rows += [row("other", "War", 1, 0, 0.0), row("one", "War", 3, 0, 0.0)]  # another method; a setting not yet whole
    _, found = errors.best(errors.grouped(rows)["War"]["one"], "rmse_after", -1)
    assert {seed: one["name"] for seed, one in found.items()} == {0: (2, 0), 1: (2, 1)}


def test_errors_and_means_pair_by_pair(errors):
    """Of one method each pair of seeds once, of two each ordered pair of different seeds."""
    draws = torch.Generator().manual_seed(0)
    stars, *said = torch.randn(5, 40, generator=draws, dtype=torch.float64)
    ours, theirs = dict(enumerate(said[:2])), dict(enumerate(said[2:]))

    def correlation(a, b):
        a, b = ([float(x - y) for x, y in zip(one, stars, strict=True)] for one in (a, b))
        a, b = ([x - fmean(one) for x in one] for one in (a, b))
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    def error(a, b):
        return math.sqrt(fmean((float(x + y) / 2 - float(z)) ** 2 for x, y, z in zip(a, b, stars, strict=True)))

    assert errors.compared(ours, ours, stars) == pytest.approx((correlation(*said[:2]), error(*said[:2])))
    pairs = [(ours[0], theirs[1]), (ours[1], theirs[0])]
    expected = [fmean(measure(*pair) for pair in pairs) for measure in (correlation, error)]
    assert errors.compared(ours, theirs, stars) == pytest.approx(tuple(expected))
