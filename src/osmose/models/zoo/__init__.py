"""The zoo: nine small classifiers of three families, written for images of 28x28 pixels and buildable for others."""

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

from osmose.models.zoo.body import Body
from osmose.models.zoo.cnn import PlainCNN, ResNet
from osmose.models.zoo.mlp import MLP, Mixer, ResMLP
from osmose.models.zoo.vit import ViT

FASHION_MNIST: dict[str, Any] = {"num_classes": 10, "channels": 1, "image_size": (28, 28)}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A named network of the zoo; called, it gives the network with newly drawn weights."""

    family: str
    description: str
    body: type[Body]
    settings: Mapping[str, Any]

    def __call__(self, **arguments: Any) -> Body:
        """Build the network from `num_classes`, `channels`, `image_size` (Fashion-MNIST's) and any settings."""
        return self.body(**{**FASHION_MNIST, **self.settings, **arguments})

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the arguments that a call takes."""
        return tuple(signature(self.body).parameters)


ZOO: dict[str, Architecture] = {
    "cnn-xs": Architecture(
        family="cnn",
        description="three convolutions without normalisation",
        body=PlainCNN,
        settings={"widths": (8, 16, 32), "strides": (2, 2, 2), "batch_norm": False},
    ),
    "cnn-s": Architecture(
        family="cnn",
        description="four convolutions with batch normalisation",
        body=PlainCNN,
        settings={"widths": (16, 32, 48, 64), "strides": (2, 2, 1, 1), "batch_norm": True},
    ),
    "resnet-s": Architecture(
        family="cnn",
        description="residual network of three blocks with batch normalisation",
        body=ResNet,
        settings={"widths": (16, 48, 96)},
    ),
    "vit-xs": Architecture(
        family="transformer",
        description="two layers on 16 patches of 7x7",
        body=ViT,
        settings={"patch": 7, "width": 24, "depth": 2, "heads": 3},
    ),
    "vit-s": Architecture(
        family="transformer",
        description="three layers on 16 patches of 7x7",
        body=ViT,
        settings={"patch": 7, "width": 64, "depth": 3, "heads": 4},
    ),
    "vit-m": Architecture(
        family="transformer",
        description="four layers on 16 patches of 7x7, dropout and stochastic depth 0.1",
        body=ViT,
        settings={"patch": 7, "width": 80, "depth": 4, "heads": 4, "dropout": 0.1, "drop_path": 0.1},
    ),
    "mlp-xs": Architecture(
        family="mlp",
        description="one hidden layer of 16 units",
        body=MLP,
        settings={"width": 16},
    ),
    "mixer-s": Architecture(
        family="mlp",
        description="MLP-Mixer of three layers on 49 patches of 4x4",
        body=Mixer,
        settings={"patch": 4, "width": 48, "depth": 3, "token_hidden": 32},
    ),
    "resmlp-m": Architecture(
        family="mlp",
        description="ResMLP of five layers on 16 patches of 7x7",
        body=ResMLP,
        settings={"patch": 7, "width": 96, "depth": 5},
    ),
}
