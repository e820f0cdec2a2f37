"""`fresh:ratings:two-tower`: a network that says how a user will rate an item (for arXiv 2310.03188, which gives none)."""

from inspect import signature
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from osmose.errors import UserError, unknown
from osmose.models.network import Network
from osmose.models.sources import Request


class Towers(nn.Module):
    """A vector for each user and each item side by side; an item's is its own and those of its genres, summed.

    Args:
        users: how many users there are.
        items: how many items.
        genres: how many genres.
        width: length of a vector.
    """

    features: Tensor

    def __init__(self, users: int, items: int, genres: int, width: int) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(users, width), nn.Embedding(items, width)
        self.genre = nn.Linear(genres, width, bias=False)
        self.register_buffer("features", torch.zeros(items, genres))
        for embedding in (self.user, self.item):
            nn.init.normal_(embedding.weight, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Users and items, int64 [B, 2], to [B, 2 width]."""
        user, item = x.unbind(-1)
        return torch.cat([self.user(user), self.item(item) + self.genre(self.features[item])], dim=-1)


class TwoTower(nn.Module):
    """Towers, hidden layers with ReLU, and one number.

    Args:
        users: how many users there are.
        items: how many items.
        genres: how many genres.
        width: length of a user's and an item's vector.
        hidden: units of each hidden layer.
        depth: hidden layers.
        dropout: share of the hidden units left out in training.
        tables: digest of the users and items that it is for.
    """

    def __init__(
        self,
        *,
        users: int,
        items: int,
        genres: int,
        width: int = 32,
        hidden: int = 64,
        depth: int = 2,
        dropout: float = 0.0,
        tables: str = "",
    ) -> None:
        for key, value, least in (("width", width, 1), ("hidden", hidden, 1), ("depth", depth, 1)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{key} is {value}: give a whole number of at least {least}")
        if not isinstance(dropout, int | float):
            raise ValueError(f"dropout is {dropout}: give a share between 0 and 1")
        super().__init__()
        self.towers = Towers(users, items, genres, width)
        sizes = [2 * width, *[hidden] * depth]
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout))
                for before, after in pairwise(sizes)
            )
        )
        self.head = nn.Linear(sizes[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Users and items, int64 [B, 2], to ratings [B, 1]."""
        rating: Tensor = self.head(self.layers(self.towers(x)))
        return rating


def fresh(key: str, request: Request) -> Network:
    """The architecture `two-tower` for the data's users and items, with new weights that say the mean rating."""
    if key != "two-tower":
        raise unknown("architecture of ratings", key, ["two-tower"])
    if request.ratings is None:
        raise UserError(f"'{request.name}' says how users rate items: give data of ratings, --data ratings:DIR")
    facts = {name: request.ratings[name] for name in ("users", "items", "genres", "tables")}
    request.check_options(set(signature(TwoTower).parameters) - set(facts))
    arguments = {**facts, **request.options}
    try:
        body = TwoTower(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"'{request.name}' cannot be built with {dict(request.options)}: {error}") from error
    body.towers.features.copy_(request.ratings["features"])
    nn.init.constant_(body.head.bias, request.ratings["mean"])
    return Network(
        body,
        name=request.name,
        architecture={"source": "ratings", "name": key, "arguments": arguments},
        preprocessing=None,
        classes=None,
        num_classes=1,
    )


def build(key: str, arguments: dict[str, Any]) -> nn.Module:
    """The architecture with new weights."""
    return TwoTower(**arguments)
