"""The loss between views against its double loop, as published codes write it."""

import pytest
import torch
import torch.nn.functional as F

from osmose.losses import soft_targets, view_pairs

DRAWS = torch.Generator().manual_seed(0)


def published(scores, target, temperature):
    """DINO's double loop."""
    total, terms = 0.0, 0
    for g in range(len(target)):
        for v in range(len(scores)):
            if v == g:
                continue
            total = total + (-target[g] * F.log_softmax(scores[v] / temperature, dim=-1)).sum(-1).mean()
            terms += 1
    return total / terms, terms


@pytest.mark.parametrize(("views", "count"), [(2, 1), (2, 2), (6, 2), (10, 2), (5, 3)])
def test_it_is_the_double_loop_for_each_target(views, count):
    scores = torch.randn(views, 7, 11, generator=DRAWS, dtype=torch.float64)
    targets = [torch.randn(count, 7, 11, generator=DRAWS, dtype=torch.float64).softmax(-1) for _ in range(2)]
    for found, target in zip(view_pairs(scores, targets, temperature=0.1), targets, strict=True):
        wanted, terms = published(scores, target, 0.1)
        assert terms == count * (views - 1)  # invariant 5
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def test_two_views_are_the_papers_equation():
    a, b = torch.randn(2, 4, 9, generator=DRAWS, dtype=torch.float64)
    of_a, of_b = torch.randn(2, 4, 9, generator=DRAWS, dtype=torch.float64).softmax(-1)
    cross = [-(one * (other / 0.1).log_softmax(-1)).sum(-1).mean() for one, other in ((of_b, a), (of_a, b))]
    (found,) = view_pairs(torch.stack([a, b]), [torch.stack([of_a, of_b])], temperature=0.1)
    torch.testing.assert_close(found, sum(cross) / 2, rtol=1e-12, atol=0)  # eq 2


def test_gradients():
    scores = torch.randn(4, 3, 5, generator=DRAWS, dtype=torch.float64, requires_grad=True)
    target = torch.randn(2, 3, 5, generator=DRAWS, dtype=torch.float64).softmax(-1)
    assert torch.autograd.gradcheck(lambda one: view_pairs(one, [target], temperature=0.7)[0], scores)
    row = torch.randn(3, 5, generator=DRAWS, dtype=torch.float64).softmax(-1)
    assert torch.autograd.gradcheck(lambda one: soft_targets(one[0], row, temperature=0.7), scores)


def test_one_hot_targets_are_plain_cross_entropy():
    scores, labels = torch.randn(6, 5, generator=DRAWS), torch.tensor([0, 1, 2, 3, 4, 0])
    found = soft_targets(scores, F.one_hot(labels, 5).float(), temperature=0.5)
    torch.testing.assert_close(found, F.cross_entropy(scores / 0.5, labels))


def test_narrow_scores_are_computed_wide():
    scores = torch.randn(4, 3, 500, generator=DRAWS).bfloat16()
    target = torch.randn(2, 3, 500, generator=DRAWS).softmax(-1)
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = view_pairs(scores, [target], temperature=0.1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, published(scores.float(), target, 0.1)[0])
