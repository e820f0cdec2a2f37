"""Who takes part in methods with a frozen self-supervised teacher."""

from collections.abc import Mapping

from osmose.errors import UserError
from osmose.models.backbones import Backbones
from osmose.models.network import Network
from osmose.signals import Frozen, teachers


def one_of_each(name: str, student: Backbones, frozen: Mapping[str, Frozen]) -> tuple[Network, Frozen | None]:
    """The one student and the one teacher of the method of that name; None where no teacher was given, which the check tells.

    Raises:
        UserError: when there are several.
    """
    given = teachers(frozen)
    if len(student.members) != 1 or len(given) > 1:
        raise UserError(f"method {name} has one student and one teacher: choose one of several")
    (network,) = student.members.values()
    return network, frozen[given[0]] if given else None
