"""`toy:cosine`, a teacher in closed form, and `fresh:toy:mlp`, a student for functions of one number (arXiv 2305.14890, toy)."""

from typing import Any

from torch import Tensor, nn

from osmose.errors import unknown
from osmose.models.model import Preprocessing
from osmose.models.network import Network
from osmose.models.sources import Request

WIDTH = 64
"""Units of each of the student's two hidden layers; the paper gives none."""


class Cosine(nn.Module):
    """cos(x), through a linear layer of weight one so that it has a head like any other network."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        """The cosine [n, 1] of numbers [n, 1, 1, 1]."""
        outputs: Tensor = self.head(x.flatten(1).cos())
        return outputs


def trained(key: str, request: Request) -> Network:
    """The teacher `cosine`."""
    if key != "cosine":
        raise unknown("toy model", key, ["cosine"])
    return _network(key, request)


def fresh(key: str, request: Request) -> Network:
    """The student `mlp` with new weights."""
    if key != "mlp":
        raise unknown("toy architecture", key, ["mlp"])
    return _network(key, request)


def build(key: str, arguments: dict[str, Any]) -> nn.Module:
    """The teacher, or the student with new weights."""
    if key == "cosine":
        return Cosine()
    return nn.Sequential(
        nn.Flatten(), nn.Linear(1, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1)
    )


def _network(key: str, request: Request) -> Network:
    request.check_options()
    return Network(
        build(key, {}),
        name=request.name,
        architecture={"source": "toy", "name": key, "arguments": {}},
        preprocessing=Preprocessing(mean=(0.0,), std=(1.0,), channels=1),
        classes=None,
        num_classes=1,
    )
