"""Positive and negative flips between two models on the same samples (arXiv 2310.17653, section 3).

Knowledge gain and loss are the flips from a student before a transfer to the student after it.
"""

from torch import Tensor


def positive_flips(student: Tensor, teacher: Tensor) -> float:
    """rho_pos: percentage of all samples on which the teacher is right and the student wrong, from booleans [n] "is right"."""
    return 100.0 * int((teacher & ~student).sum()) / len(student)


def negative_flips(student: Tensor, teacher: Tensor) -> float:
    """rho_neg: percentage of all samples on which the student is right and the teacher wrong, from booleans [n] "is right"."""
    return positive_flips(teacher, student)
