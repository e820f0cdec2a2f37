"""A network that learns without labels, the heads it speaks through, and its momentum twin."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from osmose.errors import UserError, first_line
from osmose.methods.heads import MLPOutputs, TOutputs
from osmose.models.chain import ends
from osmose.models.layout import Layout
from osmose.models.model import evaluating
from osmose.models.network import STATES, Network, Outputs
from osmose.processes import all_reduce

HEADS = ("mlp", "tokens", "search")
"""What a twin speaks through: its MLP-Head, its T-Head, and that asked by another network."""
WATCHED = HEADS[:2]
"""Those whose collapse ends a run."""


@dataclass(frozen=True)
class Look:
    """How a network looks at crops of one size.

    Attributes:
        field: of its outputs, the tokens.
        size: height and width that they are brought to.
        layout: of the tokens that it makes of them.
        width: of the features.
        enlarged: whether its code does not take them in proportion, and they are brought to the size of global ones.
        nearest: then the side of local crops nearest to theirs that it does take; None where there is none.
    """

    field: str
    size: tuple[int, int]
    layout: Layout
    width: int
    enlarged: bool = False
    nearest: int | None = None

    @property
    def is_map(self) -> bool:
        """Whether its tokens are places of a feature map, as a CNN's are."""
        return self.layout.kind in ("map", "channels-last")


@dataclass
class Seen:
    """What a network made of crops of one size.

    Attributes:
        features: pooled, [views * B, D].
        tokens: before that, [views * B, N, E], without those in front.
        layout: of the tokens.
    """

    features: Tensor
    tokens: Tensor
    layout: Layout


@dataclass
class Said:
    """What a network with its heads says of V crops of B samples.

    Attributes:
        mlp: scores of the MLP-Head [V, B, K].
        tokens: those of the T-Head; None where there is none.
        seen: what they were made of, for each size of crops.
    """

    mlp: Tensor
    tokens: Tensor | None
    seen: list[Seen]


class Branch(nn.Module):
    """A network with its heads.

    Args:
        network: without a classifier.
        mlp_head: behind its features.
        t_head: behind its tokens; None for none.
        looks: what the network makes of crops of each size.
    """

    def __init__(self, network: Network, mlp_head: MLPOutputs, t_head: TOutputs | None, looks: Sequence[Look]) -> None:
        super().__init__()
        self.network, self.mlp_head, self.t_head, self.looks = network, mlp_head, t_head, list(looks)

    def forward(self, crops: Sequence[Tensor]) -> Said:
        """Crops, float [views, B, C, h, w] for each size: one forward pass a size, and one of the prototypes of each head."""
        views = sum(map(len, crops))
        seen = [self._see(one, look) for one, look in zip(crops, self.looks, strict=False)]
        mlp = self.mlp_head(torch.cat([one.features for one in seen])).unflatten(0, (views, -1))
        if self.t_head is None:
            return Said(mlp, None, seen)
        pooled = torch.cat([self.t_head.pooled(one.tokens, one.layout) for one in seen])
        return Said(mlp, self.t_head.last(pooled).unflatten(0, (views, -1)), seen)

    def _see(self, crops: Tensor, look: Look) -> Seen:
        network, layout = self.network, look.layout
        outputs = network.run(network.prepare(crops.flatten(0, 1), size=look.size))
        tokens = outputs.field(look.field)
        assert tokens is not None, "tried at the start"
        return Seen(outputs.features, layout.tokens(tokens)[:, layout.front :], layout)


class Learner(nn.Module):
    """A branch, its twin, which follows it slowly, and the centres of what the twin's heads say.

    Args:
        branch: what trains.
        outputs: K, scores of each head.
        name: of its random streams.

    Attributes:
        centres: [heads, K], slow means of the raw scores of each of the twin's heads.
    """

    centres: Tensor
    sums: Tensor
    answers: Tensor
    counted: Tensor

    def __init__(self, branch: Branch, outputs: int, name: str) -> None:
        super().__init__()
        self.branch, self.name = branch, name
        self.twin = copy.deepcopy(branch).requires_grad_(False)
        self.register_buffer("centres", torch.zeros(len(HEADS), outputs))
        # Of the micro-batches since the last step: raw scores of each head; of the watched ones the mean answers; how many they
        # were, and the watched heads' mean entropies.
        self.register_buffer("sums", torch.zeros(len(HEADS), outputs), persistent=False)
        self.register_buffer("answers", torch.zeros(len(WATCHED), outputs), persistent=False)
        self.register_buffer("counted", torch.zeros(1 + len(WATCHED)), persistent=False)

    def train(self, mode: bool = True) -> "Learner":
        """The twin's network has no dropout and no stochastic depth; its batch normalisation sees its own batches."""
        super().train(mode)
        only_batch_norm_trains(self.twin.network, mode)
        return self

    @torch.no_grad()
    def target(self, head: str, raw: Tensor, temperature: float) -> Tensor:
        """What raw scores [G, B, K] of one of the twin's heads teach: softmax((raw - centre) / temperature), float32."""
        return ((raw.float() - self.centres[HEADS.index(head)]) / temperature).softmax(-1)

    @torch.no_grad()
    def gather(self, head: str, raw: Tensor) -> None:
        """Let the raw scores [G, B, K] of a micro-batch move the centre of a head, after the step."""
        self.sums[HEADS.index(head)] += raw.float().mean((0, 1))

    @torch.no_grad()
    def count(self, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Count a micro-batch, whose samples the twin answered through its heads with `targets` [G, B, K].

        Returns:
            In nats "twin/entropy", the mean entropy of an answer, and "twin/told", what answers have told of this micro-batch's
            samples: the entropy of the mean answer less that, which is 0 when all samples are answered alike. Of the T-Head,
            "twin/entropy-tokens" and "twin/told-tokens".
        """
        parts: dict[str, Tensor] = {}
        self.counted[0] += 1
        for head, target in targets.items():
            answer, entropy = target.mean((0, 1)), torch.special.entr(target).sum(-1).mean()
            self.answers[WATCHED.index(head)] += answer
            self.counted[1 + WATCHED.index(head)] += entropy
            named = "" if head == "mlp" else f"-{head}"
            parts |= {f"twin/entropy{named}": entropy, f"twin/told{named}": _told(answer, entropy)}
        return parts

    @torch.no_grad()
    def follow(self, momentum: float, centre_momentum: float) -> Tensor:
        """After a step: move twin and centres; every process calls it.

        Args:
            momentum: share of the twin that stays.
            centre_momentum: share of the centres that stays.

        Returns:
            What answers told of the step's samples, of each watched head.
        """
        twin: list[Tensor] = [*self.twin.parameters()]
        torch._foreach_lerp_(twin, [*self.branch.parameters()], 1 - momentum)
        kept = [self.counted, self.sums, self.answers]
        gathered = all_reduce(torch.cat([one.flatten() for one in kept]), "sum")
        counted, sums, answers = gathered.split([one.numel() for one in kept])
        count, entropies = counted[0], counted[1:]
        self.centres.lerp_(sums.view_as(self.sums) / count, 1 - centre_momentum)
        for one in kept:
            one.zero_()
        return _told(answers.view_as(self.answers) / count, entropies / count)


def _told(answer: Tensor, entropy: Tensor) -> Tensor:
    """What answers tell of samples, in nats, by the mean answer [..., K] and the mean of their entropies [...]."""
    return (torch.special.entr(answer).sum(-1) - entropy).clamp(min=0)


def only_batch_norm_trains(twin: nn.Module, mode: bool) -> None:
    """Put a twin into evaluation mode, but for its batch normalisation, which sees its own batches in training."""
    for module in twin.modules():
        module.training = mode and isinstance(module, _BatchNorm)


def looks(network: Network, shapes: Sequence[tuple[int, ...]]) -> list[Look]:
    """How a network looks at global crops, and at local ones.

    Its tokens are those that its classifier pools; of a module that does not show them, of a known family, what its last layer
    gives, to which it listens from then on.

    Global crops are seen as images are when it is evaluated. Local ones are resized by as much, where its code takes
    images of that size, and to the size of global ones where it does not.

    Args:
        network: the network.
        shapes: of one sample's global crop, and of its local one.

    Raises:
        UserError: when it takes no global crops, or does not show how its tokens lie.
    """
    assert network.preprocessing is not None, "of images"
    (channels, height, width), *others = shapes
    own = network.preprocessing.size or (height, width)
    field = _field(network, shapes[0], own)
    first = _tried(network, field, shapes[0], own)
    found = [first]

    def tried(high: int, wide: int) -> Look | None:
        wanted = (max(1, round(high * own[0] / height)), max(1, round(wide * own[1] / width)))
        with suppress(UserError):
            return _tried(network, field, (channels, high, wide), wanted)
        return None

    for _, high, wide in others:
        look = tried(high, wide)
        if look is None:
            near = sorted(
                range(max(1, high - _NEAR), min(high + _NEAR, height - 1) + 1), key=lambda side: abs(side - high)
            )
            look = replace(first, enlarged=True, nearest=next((side for side in near if tried(side, side)), None))
        found.append(look)
    return found


_NEAR = 16
"""How far a side of local crops is looked for that a network takes: half of the largest patches in use."""


def _said(network: Network, shape: tuple[int, ...], size: tuple[int, int]) -> Outputs:
    """What it says of an image of a shape that is brought to a size.

    Raises:
        UserError: when its code does not take images of that size.
    """
    try:
        with evaluating(network):
            images = torch.zeros(1, *shape, device=network.device)
            return network.run(network.prepare(images, size=size))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        network.forget()
        raise UserError(
            f"'{network.name}' fails on images of {size[0]}x{size[1]} pixels ({first_line(error)}): give larger images, "
            "view.global_size, or another network"
        ) from error


def _field(network: Network, shape: tuple[int, ...], size: tuple[int, int]) -> str:
    """Which of its outputs are its tokens."""
    outputs = _said(network, shape, size)
    if _are_tokens(outputs.tokens):
        return "tokens"
    try:
        _, last = ends(network)
    except UserError:
        last = ""
    if last:
        network.listen([last])
        with suppress(UserError):  # a layer that gives several tensors
            if _are_tokens(_said(network, shape, size).field(STATES + last)):
                return STATES + last
    raise UserError(
        f"'{network.name}' shows no feature map or tokens: give a network of the zoo, timm or torchvision, or a module with "
        "timm's methods forward_features, forward_head and get_classifier"
    )


def _are_tokens(state: Tensor | None) -> bool:
    """Of the one image that networks are tried on."""
    return state is not None and state.dim() in (3, 4) and len(state) == 1


def _tried(network: Network, field: str, shape: tuple[int, ...], size: tuple[int, int]) -> Look:
    outputs = _said(network, shape, size)
    tokens = outputs.field(field)
    assert tokens is not None, "tried before"
    last, front = field != "tokens" and network.channels_last, getattr(network.body, "num_prefix_tokens", None)
    return Look(field, size, Layout.of(tokens, channels_last=last, image=size, front=front), outputs.features.shape[1])
