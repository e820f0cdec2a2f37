"""What a method receives in one step."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Batch:
    """One view of some samples. Not frozen: Lightning Fabric rebuilds it when it moves the tensors to a device.

    Args:
        index: int64 [B], the samples' numbers in the data set's training part.
        view: number of the view, see `osmose.data.Views`; None where x is more than a view.
        x: float32 [B, C, H, W] in [0, 1].
        y: int64 [B] classes, float32 [B, classes] where samples are mixed, or float32 [B] for regression; None when unlabelled.
    """

    index: Tensor
    view: int | None
    x: Tensor
    y: Tensor | None
