"""How each sample came out: right or wrong, or by how much."""

from torch import Tensor

from osmose.data.split import Split
from osmose.models.generator import Generator
from osmose.models.model import Predictor


def outcomes(model: Predictor, answers: Tensor, split: Split) -> Tensor:
    """Booleans [n] "is right" for classes; else float32 [n] errors: squared of numbers, mean squared of a generator's images.

    Args:
        model: who answered.
        answers: as `predict` gives them.
        split: the samples; a class is right when it is the label, or one of several.
    """
    if isinstance(model, Generator):
        return answers.squeeze(1)
    assert split.labels is not None
    if split.labels.is_floating_point():
        return (answers.squeeze(1) - split.labels).square()
    best = answers.argmax(-1, keepdim=True)
    return split.labels.gather(1, best).squeeze(1) if split.labels.ndim == 2 else best.squeeze(1) == split.labels
