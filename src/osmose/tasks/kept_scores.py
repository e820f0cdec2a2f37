"""What frozen language models make of a text, kept beside their signals for the runs that ask again."""

from contextlib import suppress
from pathlib import Path

from torch import Tensor

from osmose.data.corpus import Passages
from osmose.data.kept_blocks import fingerprint
from osmose.errors import UserError
from osmose.evaluate.language import score_tokens
from osmose.files import folder_name
from osmose.models.language import LanguageModel
from osmose.signals.settings import surroundings
from osmose.signals.tokens import FrozenLanguage
from osmose.weights import read_weights, write_weights


def kept_scores(store: str, model: LanguageModel, passages: Passages, *, mixed: bool) -> Tensor:
    """What `score_tokens` gives: read from the folder `store` where a run computed it before, otherwise kept there."""
    key = {
        "network": model.digest(),
        "text": fingerprint(passages.split),
        "mixed": mixed,
        **surroundings(model.device, FrozenLanguage.libraries),
    }
    path = Path(store) / f"scores-{folder_name(key)}.safetensors"
    with suppress(UserError):
        return read_weights(path)[0]["scores"]
    scores = score_tokens(model, passages, mixed=mixed)
    with suppress(UserError, OSError):  # without a copy the next run computes them again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_weights(path, {"scores": scores}, {"key": key, "model": model.name})
    return scores
