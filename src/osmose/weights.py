"""Weights on disk: safetensors that describe themselves and are the same bytes for the same content."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from osmose.errors import UserError
from osmose.files import write_atomically

_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")
_MAGIC = (b"PK\x03\x04", *(b"\x80" + bytes([protocol]) for protocol in range(2, 6)))  # torch.save's zip, plain pickles


def write_weights(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and what is to be known of them, each value as JSON; whole or not at all.

    Raises:
        UserError: when the file cannot be written.
    """
    copies = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
    data = save(copies, {key: json.dumps(value) for key, value in about.items()})
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()  # else in chance order
    header += b" " * (-len(header) % 8)
    write_atomically(path, len(header).to_bytes(8, "little") + header, memoryview(data)[end:])


def digest(module: nn.Module, about: bytes = b"") -> str:
    """SHA-256 over `about` and every parameter's and buffer's name, shape, dtype and bytes."""
    found = hashlib.sha256(about)
    tensors = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors in a safetensors file and what stands beside them, decoded; nothing where that is not JSON.

    Raises:
        UserError: when the file is missing, unreadable, damaged, or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, _decode(file.metadata())  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"there is no file '{path}': check the path") from None
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror or error}; check its permissions") from error
    except SafetensorError as error:
        with path.open("rb") as raw:
            start = raw.read(4)
        if path.suffix in _PICKLES or start.startswith(_MAGIC):
            raise UserError(
                f"'{path}' is a pickle: weights that can execute code are not loaded; convert it with "
                "safetensors.torch.save_file(...)"
            ) from None
        raise UserError(f"'{path}' is truncated or not a safetensors file ({error}): copy or save it again") from None


def read_about(path: Path) -> dict[str, Any]:
    """What stands beside the weights in a safetensors file, which is there and whole, without reading them."""
    with safe_open(path, framework="pt") as file:
        return _decode(file.metadata())


def _decode(metadata: dict[str, str] | None) -> dict[str, Any]:
    try:
        return {key: json.loads(value) for key, value in (metadata or {}).items()}
    except ValueError:
        return {}
