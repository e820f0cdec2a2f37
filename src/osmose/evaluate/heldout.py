"""The score of each epoch, on the held-out part."""

from collections.abc import Callable

from lightning_fabric import Fabric
from torch import Tensor

from osmose.data.split import Split
from osmose.evaluate.accuracy import accuracy
from osmose.evaluate.flips import negative_flips, positive_flips
from osmose.evaluate.outcomes import outcomes
from osmose.evaluate.predict import predict
from osmose.models.network import Model
from osmose.processes import all_reduce


class HeldOut:
    """Accuracy of a student on held-out samples, and what it gained and lost since the start; or its mean squared error.

    Args:
        initial: the student before the run.
        student: gives the network that stands for the student now.
        split: the held-out samples with labels.
        fabric: processes share the work.
    """

    def __init__(self, initial: Model, student: Callable[[], Model], split: Split, fabric: Fabric) -> None:
        self.initial, self.student, self.split, self.fabric = initial, student, split, fabric
        self.before: Tensor | None = None

    def __call__(self) -> dict[str, float]:
        """The numbers; the first is the score to choose by, higher is better."""
        now = self._outcomes(self.student())
        if now.is_floating_point():
            error = now.mean().item()
            return {"heldout_score": -error, "heldout_mse": error}
        if self.before is None:
            self.before = self._outcomes(self.initial)
        return {
            "heldout_accuracy": accuracy(now),
            "heldout_knowledge_gain": positive_flips(self.before, now),
            "heldout_knowledge_loss": negative_flips(self.before, now),
        }

    def _outcomes(self, model: Model) -> Tensor:
        fabric = self.fabric
        part = predict(model, self.split, shard=fabric.global_rank, shards=fabric.world_size)
        return outcomes(model, all_reduce(part, "sum"), self.split)
