"""What a method receives in one step."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

Signals = Mapping[str, Mapping[str, Tensor]]
"""What frozen networks said of a batch, as it was on disk: by role and field, float32 [B, ...]."""


@dataclass
class Batch:
    """One view of some samples. Not frozen: Lightning Fabric rebuilds it when it moves the tensors to a device.

    Args:
        index: int64 [B], the samples' numbers in the data set's training part.
        view: number of the view, see `osmose.data.Views`; None where x is more than a view.
        x: images, float32 [B, C, H, W] in [0, 1], of several crops the first; or tokens and the documents they belong to,
            int64 [B, 2, L].
        y: int64 [B] classes, float32 [B, classes] where samples are mixed, or float32 [B] for regression; of tokens int64 [B, L]
            those behind them, -100 where nothing is to be learned; None when unlabelled.
        signals: what was on disk of what frozen networks say of it.
        crops: for each size of crops all of them, float32 [views, B, C, h, w].
        count: where samples have parts that count, such as tokens: how many of the whole step's there are, over its number of
            micro-batches; sums over a micro-batch divided by it average to the mean over the step.
    """

    index: Tensor
    view: int | None
    x: Tensor
    y: Tensor | None
    signals: Signals = field(default_factory=dict)
    crops: tuple[Tensor, ...] = ()
    count: float | None = None

    def rows(self, rows: slice) -> "Batch":
        """Some of its samples."""
        signals = {role: {name: said[rows] for name, said in fields.items()} for role, fields in self.signals.items()}
        y = None if self.y is None else self.y[rows]
        crops = tuple(views[:, rows] for views in self.crops)
        return replace(self, index=self.index[rows], x=self.x[rows], y=y, signals=signals, crops=crops)
