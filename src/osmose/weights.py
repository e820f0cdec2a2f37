"""Weights on disk: safetensors that describe themselves and are the same bytes for the same content."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from osmose.files import write_atomically


def write_weights(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and what is to be known of them, each value as JSON; whole or not at all.

    Raises:
        UserError: when the file cannot be written.
    """
    from safetensors.torch import save

    copies = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
    data = save(copies, {key: json.dumps(value) for key, value in about.items()})
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()  # else in chance order
    header += b" " * (-len(header) % 8)
    write_atomically(path, len(header).to_bytes(8, "little") + header, memoryview(data)[end:])
