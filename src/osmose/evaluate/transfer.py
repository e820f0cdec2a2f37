"""The measures of one transfer (arXiv 2310.17653, sections 3 and 5)."""

from typing import Any

from torch import Tensor

from osmose.evaluate.accuracy import accuracy
from osmose.evaluate.flips import negative_flips, positive_flips
from osmose.evaluate.mcnemar import mcnemar


def transfer_numbers(before: Tensor, after: Tensor, teachers: list[Tensor]) -> dict[str, Any]:
    """Accuracies, transfer delta, gain, loss and flips, in percent of all samples, from booleans [n] "is right".

    Args:
        before: of the student before the transfer.
        after: of the student after it.
        teachers: of each teacher; flips are counted against the first.
    """
    numbers: dict[str, Any] = {
        "samples": len(before),
        "accuracy_before": accuracy(before),
        "accuracy_after": accuracy(after),
        "transfer_delta": accuracy(after) - accuracy(before),
        "knowledge_gain": positive_flips(before, after),
        "knowledge_loss": negative_flips(before, after),
        "mcnemar_p": mcnemar(before, after),
    }
    if teachers:
        accuracies = [accuracy(teacher) for teacher in teachers]
        numbers["teacher_accuracy"] = accuracies[0] if len(accuracies) == 1 else accuracies
        for when, student in (("before", before), ("after", after)):
            numbers[f"positive_flips_{when}"] = positive_flips(student, teachers[0])
            numbers[f"negative_flips_{when}"] = negative_flips(student, teachers[0])
    return numbers
