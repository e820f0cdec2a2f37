"""`file:PATH`: weights that `Network.save` wrote, or a run's folder with its student."""

from pathlib import Path

from torch import Tensor, nn

from osmose.errors import UserError, unknown
from osmose.models.model import Preprocessing
from osmose.models.network import Network
from osmose.models.sources import SOURCES, Request, rebuilt
from osmose.weights import read_weights


def trained(key: str, request: Request) -> Network:
    """The network in the file `key`, or in `key`/student.safetensors."""
    request.check_options()
    path = Path(key)
    if path.is_dir():
        several = sorted(place.name for place in path.glob("student?.safetensors"))
        path /= "student.safetensors"
        if several:
            raise UserError(
                f"the run '{key}' has several students, {', '.join(several)}: name one, as file:{key}/{several[0]}"
            )
    if not path.exists():
        finished = (path.parent / "result.json").exists()
        if Path(key).is_dir() and not finished:
            raise UserError(f"the run '{key}' has no student.safetensors: let it finish, or name the file itself")
        there = [str(place) for place in path.parent.glob("*.safetensors")]
        if there:
            raise unknown("file", str(path), there)
        if finished:
            raise UserError(
                f"the run '{path.parent}' is finished, but its {path.name} is not kept here: delete that folder and make it again"
            )
    return read(path, request.name)


def read(path: Path, name: str) -> Network:
    """Rebuild the network that `Network.save` wrote to `path`.

    Raises:
        UserError: when the file is missing, unreadable, of another format, or does not fit the architecture it names.
    """
    tensors, about = read_weights(path)
    architecture = about.get("architecture")
    if isinstance(architecture, dict) and architecture.get("source") == "generator":
        raise UserError(f"'{path}' holds a generator, which answers with images: use it as method.augmentor.model")
    if not isinstance(architecture, dict) or architecture.get("source") not in SOURCES:
        raise UserError(
            f"'{path}' does not say what architecture its weights are of: build the module, load them with its "
            "load_state_dict, and give the module to load_model"
        )
    try:
        body = rebuilt(architecture)
    except UserError as error:
        raise UserError(f"the architecture that '{path}' names cannot be built: {error}") from error
    _fill(body, tensors, path)
    network = Network(
        body,
        name=name,
        architecture=architecture,
        preprocessing=Preprocessing.of(about["preprocessing"]) if about["preprocessing"] else None,
        classes=None if about["classes"] is None else tuple(about["classes"]),
        num_classes=about["num_classes"],
    )
    on_meta = any(tensor.is_meta for tensor in body.state_dict().values())
    if not on_meta and about.get("digest", network.digest()) != network.digest():
        raise UserError(f"the weights in '{path}' are not those that were saved: the file is damaged; copy it again")
    return network


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
