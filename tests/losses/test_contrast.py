"""Noise-contrastive estimation against the probabilities of its definition."""

import math

import torch

from osmose.losses import noise_contrast

DRAWN = torch.Generator().manual_seed(0)
POSITIVE = torch.randn(4, generator=DRAWN, dtype=torch.float64)
NEGATIVES = torch.randn(4, 6, generator=DRAWN, dtype=torch.float64)
VALID = torch.rand(4, 6, generator=DRAWN) < 0.6
VALID[2] = False
LOG_Z = torch.tensor(0.7, dtype=torch.float64)


def test_against_the_definition():
    """h = P / (P + m / N): the probability that an embedding is the sample's own and none of m drawn from N."""
    losses = []
    for positive, negatives, valid in zip(POSITIVE, NEGATIVES, VALID, strict=True):
        m = int(valid.sum())
        if m == 0:
            continue
        own = positive.exp() / math.exp(0.7)
        loss = -(own / (own + m / 50)).log()
        for score in negatives[valid]:
            other = score.exp() / math.exp(0.7)
            loss -= (1 - other / (other + m / 50)).log()
        losses.append(loss)
    assert len(losses) == 3
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(noise_contrast(POSITIVE, NEGATIVES, VALID, log_z=LOG_Z, rows=50), expected)


def test_without_negatives_there_is_no_loss():
    assert noise_contrast(POSITIVE, NEGATIVES, torch.zeros_like(VALID), log_z=LOG_Z, rows=50) == 0


def test_large_scores_stay_finite():
    loss = noise_contrast(POSITIVE * 0 - 1e4, NEGATIVES * 0 + 1e4, VALID, log_z=LOG_Z, rows=50)
    assert loss.isfinite()


def test_gradients():
    def loss(positive, negatives):
        return noise_contrast(positive, negatives, VALID, log_z=LOG_Z, rows=50)

    assert torch.autograd.gradcheck(loss, (POSITIVE.clone().requires_grad_(), NEGATIVES.clone().requires_grad_()))
