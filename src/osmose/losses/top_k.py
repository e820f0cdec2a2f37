"""Logits restricted to a target's most probable classes."""

from torch import Tensor


def top_k_logits(student: Tensor, target: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Both models' logits [n, k] of each sample's k highest target classes (arXiv 2310.17653, appendix B.1).

    A softmax over them is renormalised on both sides. k at or above the number of classes gives all of them, reordered.
    """
    target_k, classes = target.topk(min(k, target.shape[-1]), dim=-1)
    return student.gather(-1, classes), target_k
