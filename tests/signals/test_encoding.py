"""Encodings against what they must keep."""

import numpy as np
import pytest
import torch

from osmose.signals.encoding import Dense, TopK

LOGITS = torch.randn(50, 30, generator=torch.Generator().manual_seed(0)) * 4
LABELS = torch.randint(30, (50,), generator=torch.Generator().manual_seed(1))


def there_and_back(encoding, values, labels=None):
    raw = encoding.encode(values, labels)
    assert raw.dtype == np.uint8
    assert raw.shape == (len(values), encoding.size)
    return encoding.decode(raw)


@pytest.mark.parametrize("shape", [(30,), (2, 3, 5)])
def test_float32_is_exact(shape):
    values = LOGITS.reshape(50, *shape) * 1e-20
    assert torch.equal(there_and_back(Dense(shape, "float32"), values), values)


def test_float16_is_rounded_once():
    encoding = Dense((30,), "float16")
    assert encoding.size == 60
    assert torch.equal(there_and_back(encoding, LOGITS), LOGITS.half().float())


@pytest.mark.parametrize("k", [1, 5, 28])
def test_top_k_keeps_probabilities_of_the_highest_and_of_the_true_class(k):
    encoding = TopK(k, 30, "float32")
    before, after = LOGITS.softmax(-1), there_and_back(encoding, LOGITS, LABELS).softmax(-1)
    torch.testing.assert_close(after.sum(-1), torch.ones(50))
    highest = before.topk(k).indices
    torch.testing.assert_close(after.gather(-1, highest), before.gather(-1, highest))
    torch.testing.assert_close(after.gather(-1, LABELS[:, None]), before.gather(-1, LABELS[:, None]))
    torch.testing.assert_close(after.amax(-1), before.amax(-1))


def test_what_top_k_leaves_out_is_shared_evenly():
    (row,) = there_and_back(
        TopK(2, 5, "float32"), torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0]]), torch.tensor([4])
    ).softmax(-1)
    p = torch.tensor([3.0, 2.0, 1.0, 0.0, -1.0]).softmax(-1)
    others = (p[2] + p[3]) / 2
    torch.testing.assert_close(row, torch.stack([p[0], p[1], others, others, p[4]]))


def test_without_labels_one_more_of_the_highest_is_kept():
    before, after = LOGITS.softmax(-1), there_and_back(TopK(3, 30, "float32"), LOGITS).softmax(-1)
    highest = before.topk(4).indices
    torch.testing.assert_close(after.gather(-1, highest), before.gather(-1, highest))


def test_all_classes_but_one_are_all_classes():
    after = there_and_back(TopK(29, 30, "float32"), LOGITS, LABELS)
    torch.testing.assert_close(after, LOGITS.log_softmax(-1))


def test_size_of_top_k():
    """Eleven classes of two bytes, eleven numbers of two, the rest in four; above 32,768 classes these take four bytes."""
    assert TopK(10, 1000, "float16").size == 11 * 4 + 4
    assert TopK(10, 50_000, "float16").size == 11 * 6 + 4
