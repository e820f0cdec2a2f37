"""Batches mixed with themselves, against plain loops."""

import pytest
import torch

from osmose.data.batch import Batch
from osmose.data.blend import Blend
from osmose.errors import UserError

X = torch.rand(6, 2, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


def batch(y=Y):
    return Batch(torch.arange(6), 3, X, y)


def pairs(blended, kept):
    """For each sample the other one it was mixed with, found by trying all."""
    found = []
    for row in range(6):
        errors = [(blended.x[row] - kept * X[row] - (1 - kept) * X[other]).abs().max().item() for other in range(6)]
        assert min(errors) < 1e-6
        found.append(errors.index(min(errors)))
    return found


def test_none_changes_nothing():
    given = batch()
    assert Blend()(given, 3, 0, 0) is given


def test_mixup_mixes_inputs_and_labels_alike():
    blended = Blend(name="mixup")(batch(), 3, 0, 5)
    assert blended.view is None
    kept = blended.y[torch.arange(6), Y].min().item()  # where the other sample is of another class
    others = pairs(blended, kept)
    assert sorted(others) == list(range(6))
    for row, other in enumerate(others):
        expected = torch.zeros(3)
        expected[Y[row]] += kept
        expected[Y[other]] += 1 - kept
        torch.testing.assert_close(blended.y[row], expected)
    numbers = Blend(name="mixup")(batch(Y.float()), None, 0, 5)
    expected = [kept * Y[row].item() + (1 - kept) * Y[other].item() for row, other in enumerate(others)]
    assert numbers.y.tolist() == pytest.approx(expected)
    assert Blend(name="mixup")(batch(None), 3, 0, 5).y is None


def test_mixup_draws_its_proportion_from_beta():
    """Of Beta(a, a) the mean is 1/2 and the variance 1 / (4 (2a + 1)); means of 4,000 draws, within four standard errors."""
    for alpha in (0.2, 1.0, 5.0):
        ones = Batch(torch.arange(2), 0, torch.eye(2).view(2, 1, 1, 2), torch.tensor([0.0, 1.0]))
        shares = []
        for step in range(4000):
            blended = Blend(name="mixup", alpha=alpha)(ones, None, 0, step)
            if not torch.equal(blended.x, ones.x):  # mixed with the other one, not with itself
                shares.append(blended.x[0, 0, 0, 0].item())
        shares = torch.tensor(shares)
        variance = 1 / (4 * (2 * alpha + 1))
        assert shares.mean().item() == pytest.approx(0.5, abs=4 * (variance / len(shares)) ** 0.5)
        assert shares.var().item() == pytest.approx(variance, rel=0.1)


def test_cutmix_takes_a_box_and_labels_by_its_area():
    boxes = set()
    for step in range(30):
        blended = Blend(name="cutmix")(batch(), 3, 0, step)
        kept_pixels = (blended.x == X).all(1)
        for row in range(6):
            cut = ~kept_pixels[row]
            if not cut.any():
                continue
            rows, columns = cut.any(1).nonzero().flatten(), cut.any(0).nonzero().flatten()
            assert cut.sum() == len(rows) * len(columns)  # a box
            other = next(o for o in range(6) if torch.equal(blended.x[row][:, cut], X[o][:, cut]))
            expected = torch.zeros(3)
            expected[Y[row]] += kept_pixels[row].float().mean()
            expected[Y[other]] += cut.float().mean()
            torch.testing.assert_close(blended.y[row], expected)
            boxes.add((len(rows), len(columns)))
    assert len(boxes) > 3


def test_noise_has_its_deviation_and_leaves_labels():
    big = Batch(torch.arange(10), 0, torch.zeros(10, 1, 100, 100), Y[:1].expand(10))
    blended = Blend(name="noise", noise=0.5)(big, 3, 0, 0)
    assert blended.x.std().item() == pytest.approx(0.5, rel=0.02)
    assert blended.x.mean().item() == pytest.approx(0, abs=0.01)
    assert torch.equal(blended.y, big.y)


def test_one_of_both_is_drawn_at_each_step():
    kinds = []
    for step in range(200):
        blended = Blend(name="mixup-or-cutmix")(batch(), 3, 0, step)
        alone = {name: Blend(name=name)(batch(), 3, 0, step) for name in ("mixup", "cutmix")}
        kinds += [
            name for name, one in alone.items() if torch.equal(one.x, blended.x) and torch.equal(one.y, blended.y)
        ]
    assert kinds.count("mixup") > 70
    assert kinds.count("cutmix") > 70
    assert Blend(name="mixup-or-cutmix").mixes


@pytest.mark.parametrize("name", ["mixup", "cutmix", "mixup-or-cutmix", "noise"])
def test_depends_on_seed_and_counters_alone(name):
    torch.rand(3)
    first = Blend(name=name)(batch(), 3, 1, 2, 3, 0)
    torch.rand(5)
    assert torch.equal(first.x, Blend(name=name)(batch(), 3, 1, 2, 3, 0).x)
    for other in ((2, 2, 3, 0), (1, 2, 3, 1), (1, 2, 4, 0)):
        assert not torch.equal(first.x, Blend(name=name)(batch(), 3, *other).x)


def test_mistakes():
    with pytest.raises(UserError, match=r"^key 'blend\.alpha' is 0\.0: set it to a number above 0$"):
        Blend(alpha=0.0)
