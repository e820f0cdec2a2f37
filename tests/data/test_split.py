"""Stratified choice of rows."""

from fractions import Fraction

import torch
from hypothesis import given
from hypothesis import strategies as st

from osmose.data.inputs import MemoryInputs, Rows
from osmose.data.split import Split, stratified


@given(st.lists(st.integers(0, 6), min_size=1, max_size=80), st.data())
def test_class_counts_follow_the_largest_remainder(labels, data):
    count = data.draw(st.integers(0, len(labels)))
    rows = stratified(torch.tensor(labels), count, torch.Generator().manual_seed(0))
    assert len(set(rows.tolist())) == count
    assert rows.tolist() == sorted(rows.tolist())
    shares = {c: Fraction(labels.count(c) * count, len(labels)) for c in set(labels)}
    chosen = {c: sum(labels[row] == c for row in rows.tolist()) for c in shares}
    assert all(int(shares[c]) <= chosen[c] <= int(shares[c]) + 1 for c in shares)
    given_more = [shares[c] % 1 for c in shares if chosen[c] > shares[c]]
    given_none = [shares[c] % 1 for c in shares if chosen[c] == int(shares[c])]
    assert not given_more or not given_none or min(given_more) >= max(given_none)


def test_the_choice_depends_on_the_generator_alone():
    labels = torch.arange(10).repeat(30)
    draw = lambda seed: stratified(labels, 100, torch.Generator().manual_seed(seed))  # noqa: E731
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_every_row_is_as_likely_as_its_class_mates():
    labels = torch.tensor([0] * 6 + [1] * 2)
    counts = sum(
        stratified(labels, 4, torch.Generator().manual_seed(s)).bincount(minlength=8).double() for s in range(600)
    )
    assert (counts - 300).abs().max() < 4 * (600 * 0.25) ** 0.5


def test_float_labels_are_one_class():
    rows = stratified(torch.tensor([0.5, -1.0, 2.5, 7.0]), 3, torch.Generator().manual_seed(0))
    assert len(rows) == 3


def test_subsets_of_subsets_keep_pixels_labels_and_numbers():
    pixels = torch.arange(20, dtype=torch.uint8)[:, None, None, None].expand(20, 1, 2, 2)
    split = Split(MemoryInputs(pixels), torch.arange(20) % 3, torch.arange(100, 120))
    part = split.subset(torch.tensor([3, 9, 4, 17])).subset(torch.tensor([3, 1]))
    assert len(part) == 2
    assert part.index.tolist() == [117, 109]
    assert part.labels.tolist() == [17 % 3, 9 % 3]
    assert part.inputs.read(torch.tensor([1, 0]))[:, 0, 0, 0].tolist() == [9, 17]
    assert isinstance(part.inputs, Rows)
    assert isinstance(part.inputs.inputs, MemoryInputs)  # rows of rows do not pile up
    assert part.unlabelled().labels is None
    assert part.unlabelled().index.tolist() == [117, 109]
