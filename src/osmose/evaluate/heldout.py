"""The score of each epoch, on the held-out part."""

from collections.abc import Callable

from lightning_fabric import Fabric
from torch import Tensor

from osmose.data.corpus import Passages
from osmose.data.split import Split
from osmose.evaluate.accuracy import accuracy
from osmose.evaluate.flips import negative_flips, positive_flips
from osmose.evaluate.language import score_tokens, text_numbers
from osmose.evaluate.outcomes import outcomes
from osmose.evaluate.predict import predict
from osmose.evaluate.ratings import root_mean_square
from osmose.models.language import LanguageModel
from osmose.models.model import Predictor
from osmose.processes import all_reduce


class HeldOut:
    """Accuracy of a student on held-out samples, and what it gained and lost since the start; or its mean squared error.

    Args:
        initial: the student before the run.
        student: gives the network that stands for the student now.
        split: the held-out samples with labels.
        fabric: processes share the work.
    """

    def __init__(self, initial: Predictor, student: Callable[[], Predictor], split: Split, fabric: Fabric) -> None:
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

    def _outcomes(self, model: Predictor) -> Tensor:
        fabric = self.fabric
        part = predict(model, self.split, shard=fabric.global_rank, shards=fabric.world_size)
        return outcomes(model, all_reduce(part, "sum"), self.split)


class HeldOutRatings(HeldOut):
    """The root mean squared error of a student on held-out ratings, in stars."""

    def __call__(self) -> dict[str, float]:
        """The numbers; the first is the score to choose by, higher is better."""
        error = root_mean_square(self._outcomes(self.student()))
        return {"heldout_score": -error, "heldout_rmse": error}


class HeldOutText:
    """Perplexity of a language model on held-out text.

    Args:
        student: gives the model that stands for the student now.
        passages: the text.
        fabric: processes share the work.
        mixed: compute in bfloat16 where torch's autocast finds it safe.
    """

    def __init__(
        self, student: Callable[[], LanguageModel], passages: Passages, fabric: Fabric, *, mixed: bool = False
    ) -> None:
        self.student, self.passages, self.fabric, self.mixed = student, passages, fabric, mixed

    def __call__(self) -> dict[str, float]:
        """The numbers; the first is the score to choose by, higher is better."""
        fabric = self.fabric
        part = score_tokens(
            self.student(), self.passages, shard=fabric.global_rank, shards=fabric.world_size, mixed=self.mixed
        )
        numbers = text_numbers(all_reduce(part, "sum"), self.passages)
        return {
            "heldout_score": -numbers["loss"],
            "heldout_perplexity": numbers["perplexity"],
            "heldout_token_accuracy": numbers["token_accuracy"],
        }
