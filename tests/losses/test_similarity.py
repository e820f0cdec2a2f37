"""Cosine similarities against a loop."""

import torch

from osmose.losses import cosine_similarities

FEATURES = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_against_a_loop():
    similarities = cosine_similarities(FEATURES)
    for i, one in enumerate(FEATURES):
        for j, other in enumerate(FEATURES):
            expected = (one @ other) / (one.square().sum().sqrt() * other.square().sum().sqrt())
            torch.testing.assert_close(similarities[i, j], expected)


def test_narrow_features_are_widened_whatever_runs_around():
    narrow = FEATURES.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        similarities = cosine_similarities(narrow)
    torch.testing.assert_close(similarities, cosine_similarities(narrow.double()).float())


def test_gradient():
    assert torch.autograd.gradcheck(cosine_similarities, FEATURES.clone().requires_grad_())
