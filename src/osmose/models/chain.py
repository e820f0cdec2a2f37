"""Which layers of a network follow one another, for families whose names are known."""

import re

from torch import nn

from osmose.errors import UserError
from osmose.models.network import Network

_CHAINS = (
    ("towers", r"layers\.\d+"),
    (r"(body\.)?blocks\.\d+", r"(body\.)?blocks\.\d+"),
    (r"(body\.)?layers\.\d+", r"(body\.)?layers\.\d+"),
    (r"encoder\.layers\.encoder_layer_\d+", r"encoder\.layers\.encoder_layer_\d+"),
    (r"stages\.\d+", r"stages\.\d+"),
    (r"layer\d+", r"layer\d+"),
    (r"features\.\d+", r"features\.\d+"),
    (r"(\w+\.)*vit\.layers\.\d+", r"(\w+\.)*vit\.layers\.\d+"),
    (r"(\w+\.)*encoder\.stages\.\d+", r"(\w+\.)*encoder\.stages\.\d+"),
)
"""What the first is called, and what all behind it are: in networks of ratings; the zoo, timm, torchvision; transformers."""


def layers(body: nn.Module) -> list[str]:
    """The paths of the layers that a sample passes one after another, in order; none for a body of another family."""
    names = [name for name, _ in body.named_modules()]
    for first, behind in _CHAINS:
        found = [name for name in names if re.fullmatch(first, name)]
        found += [name for name in names if found and re.fullmatch(behind, name) and name not in found]
        if len(found) > 1:
            return found
    return []


def chain(network: Network) -> list[str]:
    """The layers of a network's body.

    Raises:
        UserError: where they are not known.
    """
    if found := layers(network.body):
        return found
    raise UserError(
        f"'{network.name}' does not say which of its layers follow one another: name them in the method's section"
    )


def ends(network: Network) -> tuple[str, str]:
    """The first and the last of them."""
    first, *_, last = chain(network)
    return first, last
