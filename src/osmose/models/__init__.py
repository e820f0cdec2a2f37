"""Any model by name, as a network that owns its preprocessing, class names and features."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from osmose.models.load import load_model, show_models
    from osmose.models.model import Preprocessing
    from osmose.models.network import Network, Outputs

_PLACES = {
    "Network": "osmose.models.network",
    "Outputs": "osmose.models.network",
    "Preprocessing": "osmose.models.model",
    "load_model": "osmose.models.load",
    "show_models": "osmose.models.load",
}
__all__ = ["Network", "Outputs", "Preprocessing", "load_model", "show_models"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(_PLACES[name]), name)
