"""`file:PATH`: weights that `Network.save` wrote, or a run's folder with its student."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from osmose.errors import UserError
from osmose.models.network import Network, Preprocessing
from osmose.models.sources import SOURCES, Request, source

_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")
_MAGIC = (b"PK\x03\x04", *(b"\x80" + bytes([protocol]) for protocol in range(2, 6)))  # torch.save's zip, plain pickles


def trained(key: str, request: Request) -> Network:
    """The network in the file `key`, or in `key`/student.safetensors."""
    request.check_options()
    path = Path(key)
    if path.is_dir():
        path /= "student.safetensors"
        if not path.exists():
            raise UserError(f"the run '{key}' has no student.safetensors: let it finish, or name the file itself")
    return read(path, request.name)


def read(path: Path, name: str) -> Network:
    """Rebuild the network that `Network.save` wrote to `path`.

    Raises:
        UserError: when the file is missing, unreadable, of another format, or does not fit the architecture it names.
    """
    about, tensors = _read(path)
    architecture = about.get("architecture")
    if not isinstance(architecture, dict) or architecture.get("source") not in SOURCES:
        raise UserError(
            f"'{path}' does not say what architecture its weights are of: build the module, load them with its "
            "load_state_dict, and give the module to load_model"
        )
    try:
        body = source(architecture["source"]).build(architecture["name"], architecture["arguments"])
    except UserError as error:
        raise UserError(f"the architecture that '{path}' names cannot be built: {error}") from error
    _fill(body, tensors, path)
    preprocessing: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in about["preprocessing"].items()
    }
    network = Network(
        body,
        name=name,
        architecture=architecture,
        preprocessing=Preprocessing(**preprocessing),
        classes=None if about["classes"] is None else tuple(about["classes"]),
        num_classes=about["num_classes"],
    )
    on_meta = any(tensor.is_meta for tensor in body.state_dict().values())
    if not on_meta and about.get("digest", network.digest()) != network.digest():
        raise UserError(f"the weights in '{path}' are not those that were saved: the file is damaged; copy it again")
    return network


def metadata(path: Path) -> dict[str, Any]:
    """What stands beside the weights in `path`, decoded; empty for a file that `Network.save` did not write."""
    with safe_open(path, framework="pt") as file:
        return _decode(file.metadata())


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            return _decode(file.metadata()), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
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


def _decode(metadata: dict[str, str] | None) -> dict[str, Any]:
    try:
        return {key: json.loads(value) for key, value in (metadata or {}).items()}
    except ValueError:
        return {}


def _fill(body: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    own = body.state_dict()
    for key in own | tensors:
        there, wanted = ("no tensor" if key not in state else f"{tuple(state[key].shape)}" for state in (tensors, own))
        if there != wanted:
            raise UserError(
                f"'{path}' does not fit its architecture: {there} for '{key}' in the file, {wanted} in the network; "
                "save it again from the network it was trained as"
            )
    if not any(value.is_meta for value in own.values()):
        body.load_state_dict(tensors)
