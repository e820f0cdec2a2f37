"""How alike classes are by their names, as a sentence encoder understands them."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from osmose import torchvision_ops
from osmose.errors import UserError, first_line, missing_extra


def similarities_of(names: Sequence[str], encoder: str) -> Tensor:
    """Cosines [c, c] between the embedded names: a CLIP model's text features, else the mean of the last hidden states.

    Args:
        names: of c classes.
        encoder: a folder with a sentence encoder in Hugging Face's layout, or its name on the hub.

    Raises:
        UserError: when it cannot be loaded, or the extra 'language' is missing.
    """
    torchvision_ops.install()  # transformers imports torchvision
    try:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging
    except ModuleNotFoundError as error:
        raise missing_extra("the similarity of class names needs", "language") from error
    logging.disable_progress_bar()
    local = Path(encoder).is_dir()
    try:
        tokenizer = AutoTokenizer.from_pretrained(encoder, local_files_only=local)
        model = AutoModel.from_pretrained(encoder, local_files_only=local, use_safetensors=True).eval()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load the encoder '{encoder}': {first_line(error)}") from None
    tokens = tokenizer(list(names), padding=True, return_tensors="pt")
    with torch.no_grad():
        if hasattr(model, "get_text_features"):  # CLIP and its like
            said = model.get_text_features(**tokens)
            vectors = said if isinstance(said, Tensor) else said.pooler_output
        else:
            states = model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
            vectors = (states * mask).sum(1) / mask.sum(1)
    unit = F.normalize(vectors, dim=-1)
    return unit @ unit.T
