"""Methods by name."""

from osmose.engine.method import Method
from osmose.errors import unknown
from osmose.methods.attention import Attention
from osmose.methods.autoencode import Autoencode
from osmose.methods.contrastive import Contrastive
from osmose.methods.dino import Dino
from osmose.methods.disco import Disco
from osmose.methods.distill import Distill
from osmose.methods.feature import Feature
from osmose.methods.fitnet import FitNet
from osmose.methods.hard import Hard
from osmose.methods.interactive import Interactive
from osmose.methods.language import Language
from osmose.methods.mokd import Mokd
from osmose.methods.momentum import Momentum
from osmose.methods.mutual import Mutual
from osmose.methods.rekd import Rekd
from osmose.methods.relational import Relational
from osmose.methods.seed import Seed
from osmose.methods.supervised import Supervised

METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
    "distill": Distill,
    "momentum": Momentum,
    "contrastive": Contrastive,
    "fitnet": FitNet,
    "feature": Feature,
    "attention": Attention,
    "relational": Relational,
    "interactive": Interactive,
    "dino": Dino,
    "mokd": Mokd,
    "seed": Seed,
    "disco": Disco,
    "rekd": Rekd,
    "mutual": Mutual,
    "hard": Hard,
    "autoencode": Autoencode,
    "language": Language,
}


def find_method(name: str) -> type[Method]:
    """The method of that name.

    Raises:
        UserError: when there is none.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]
