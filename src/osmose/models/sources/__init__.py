"""Where models come from: one file a source.

A source is a module with `trained(key, request) -> Network` and, where it knows architectures, `fresh(key, request) ->
Network` for new weights and `build(key, arguments) -> nn.Module` for a saved `Network.architecture`. The key is the
name without its prefix. To add a source, write the module and put it into `SOURCES`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import nn

from osmose.errors import unknown
from osmose.models.last_layers import LastLayers

SOURCES: dict[str, str] = {
    "zoo": "osmose.models.sources.zoo",
    "timm": "osmose.models.sources.timm",
    "file": "osmose.models.sources.file",
    "toy": "osmose.models.sources.toy",
    "nix": "osmose.models.sources.nix",
    "ratings": "osmose.models.sources.ratings",
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `load_model` was asked: the whole name, the source's options, facts about the data (None: not said).

    Of ratings the facts are "users", "items" and "genres", how many there are; "features", float32 [items, genres]; "tables", a
    digest of them all; and "mean" of the training part's stars.
    """

    name: str
    options: Mapping[str, Any]
    classes: tuple[str, ...] | None = None
    num_classes: int | None = None
    channels: int | None = None
    image_size: tuple[int, int] | None = None
    ratings: Mapping[str, Any] | None = None

    def check_options(self, known: Iterable[str] = ()) -> None:
        """Raise `UserError` for an option that is not known."""
        known = set(known)
        for option in self.options:
            if option not in known:
                raise unknown(f"option of '{self.name}':", option, known)


def source(prefix: str) -> Any:
    """The module behind a prefix; KeyError for an unknown one."""
    return import_module(SOURCES[prefix])


def rebuilt(architecture: Mapping[str, Any]) -> nn.Module:
    """The body that a `Network.architecture` describes, with new weights.

    Args:
        architecture: "source", "name" and "arguments"; and where its classifier reads several layers "reads", with the
            arguments of `LastLayers`.
    """
    body: nn.Module = source(architecture["source"]).build(architecture["name"], architecture["arguments"])
    reads = architecture.get("reads")
    return LastLayers(body, num_classes=architecture["arguments"]["num_classes"], **reads) if reads else body
