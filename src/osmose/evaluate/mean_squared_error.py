"""The mean squared error."""

from torch import Tensor

from osmose.data.split import Split


def mean_squared_error(outputs: Tensor, split: Split) -> float:
    """Of a network's outputs [n, 1] against the split's labels, numbers [n]."""
    assert split.labels is not None
    return (outputs.squeeze(-1) - split.labels).square().mean().item()
