"""Any model by name, as a network that owns its preprocessing, class names and features."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from osmose.models.load import load_model, show_models
    from osmose.models.network import Network, Outputs, Preprocessing

__all__ = ["Network", "Outputs", "Preprocessing", "load_model", "show_models"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from osmose.models import load, network

    return getattr(load if name.endswith(("model", "models")) else network, name)
