"""Networks without heads that train side by side, as one model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from osmose.models.model import Model
from osmose.models.network import Network


class Backbones(Model):
    """One network or several, whose features are what counts.

    Args:
        networks: without classifiers, and of one number of channels.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        name = " + ".join(network.name for network in networks)
        super().__init__(nn.ModuleList(networks), name=name, architecture=None)

    @property
    def members(self) -> dict[str, Network]:
        """The networks by role: "student" where there is one, else "student1", "student2", ..."""
        networks = list(self.body)
        if len(networks) == 1:
            return {"student": networks[0]}
        return {f"student{number}": network for number, network in enumerate(networks, start=1)}

    def answer(self, x: Tensor) -> Tensor:
        """Not asked: features are evaluated, of each network by itself."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """Those of all networks."""
        return {role: network.facts() for role, network in self.members.items()}

    def places(self, path: Path) -> dict[str, Path]:
        """The file of each network where `save` is given `path`: that file, or with several its name and their numbers."""
        members = self.members
        if len(members) == 1:
            return {"student": path}
        return {role: path.with_stem(f"{path.stem}{number}") for number, role in enumerate(members, start=1)}

    def save(self, path: str | Path, **metadata: Any) -> None:
        """Write each network into a file of its own."""
        for role, place in self.places(Path(path)).items():
            self.members[role].save(place, **metadata)

    def saved(self, path: Path) -> bool:
        """Whether every file is there."""
        return all(place.exists() for place in self.places(path).values())

    def restore(self, path: Path) -> None:
        """Take each network's weights from its file."""
        for role, place in self.places(path).items():
            self.members[role].restore(place)

    def quiet(self) -> None:
        """As `Model.quiet`, of each network."""
        for network in self.members.values():
            network.quiet()

    def settle(self) -> None:
        """As `Model.settle`, of each network."""
        for network in self.members.values():
            network.settle()
