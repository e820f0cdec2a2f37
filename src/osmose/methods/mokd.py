"""Two self-supervised networks that teach each other: multi-mode online knowledge distillation (MOKD, CVPR 2023)."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from osmose.engine.clock import Clock
from osmose.engine.optimiser import Optimiser
from osmose.errors import UserError, check
from osmose.losses import soft_targets, view_pairs
from osmose.methods.dino import CNN, TRANSFORMER, Dino, Temperature
from osmose.methods.heads import MLPHead, THead, TOutputs
from osmose.methods.learner import Branch, Look, Said
from osmose.models.backbones import Backbones
from osmose.models.layout import Layout
from osmose.signals import Frozen

_WIDTH = 384
"""Of T-Heads where no network is a transformer: ViT-Small's."""


class Mokd(Dino):
    """L_i = L_sm + L_st + lambda_i * (L_cm + L_ct), summed over both networks (eqs 2 to 9).

    L_sm and L_st are DINO's loss of a network's MLP-Head and T-Head with its own twin. In L_cm the other network's twin is the
    teacher. In L_ct it is too, but its T-Head is asked: the network's pooled features join the other twin's tokens as one more,
    and what comes of the tokens is the target.

    Args:
        student: two networks.
        frozen: not used.
        cross_weights: lambda of the first and of the second network.
        outputs: K, scores of a head.
        mlp_head: the head behind features.
        t_head: the head behind tokens; none leaves L_st and L_ct out.
        search: how a T-Head is asked: "paper", for each pair of global crops, by the projected mean of the tokens, the answer
            centred; "code", as in the public code, for each local crop on the first global one, without a centre, and for a
            transformer as wide as the T-Heads by its own features; "none", not at all.
        student_temperature: T.
        teacher_temperature: T'.
        momentum: share of the twins that stays in a step, at the start; it goes to 1 on a cosine.
        centre_momentum: share of the centres that stays in a step.
        still_epochs: epochs at the start in which the heads' last layers do not train.
        cnn_optimiser: of networks with feature maps.
        transformer_optimiser: of networks with tokens, and of the T-Heads behind them.
        t_head_optimiser: of T-Heads behind feature maps.
    """

    summary = "self-supervised: two networks learn side by side, each from its own twin and the other's"
    source = "Song et al., CVPR 2023"

    def __init__(
        self,
        student: Backbones,
        frozen: Mapping[str, Frozen],
        *,
        cross_weights: tuple[float, float] = (1.0, 1.0),
        outputs: int = 65536,
        mlp_head: MLPHead = MLPHead(),
        t_head: THead | None = THead(),
        search: Literal["paper", "code", "none"] = "paper",
        student_temperature: float = 0.1,
        teacher_temperature: Temperature = Temperature(),
        momentum: float = 0.996,
        centre_momentum: float = 0.9,
        still_epochs: int = 1,
        cnn_optimiser: Optimiser = CNN,
        transformer_optimiser: Optimiser = TRANSFORMER,
        t_head_optimiser: Optimiser = Optimiser(
            name="sgd",
            lr=3e-4,
            weight_decay=0.04,
            final_weight_decay=0.4,
            decay_vectors=False,
            clip_each=3.0,
            schedule="cosine",
            warmup_epochs=10,
            final=1 / 30,
        ),
    ) -> None:
        super().__init__(
            student, frozen, outputs=outputs, mlp_head=mlp_head, student_temperature=student_temperature,
            teacher_temperature=teacher_temperature, momentum=momentum, centre_momentum=centre_momentum,
            still_epochs=still_epochs, cnn_optimiser=cnn_optimiser, transformer_optimiser=transformer_optimiser,
        )  # fmt: skip
        if len(self._networks) != 2:
            raise UserError(
                f"method mokd takes two students, {len(self._networks)} given: --student fresh:zoo:resnet-s fresh:zoo:vit-s; "
                "for one of them method dino"
            )
        check(all(weight >= 0 for weight in cross_weights), "method.cross_weights", cross_weights, "at least 0 each")
        self.cross_weights, self.t_head, self.t_head_optimiser = cross_weights, t_head, t_head_optimiser
        if t_head is None and search == "code":
            raise UserError(
                "method.search is 'code' and method.t_head none: there is nothing to ask; leave one of them out"
            )
        self.search = search if t_head else "none"

    def taught_by(self, teachers: Sequence[str]) -> str:
        own = super().taught_by(teachers)
        return f"{own} and the other network's" if any(self.cross_weights) else own

    def needs(self) -> frozenset[str]:
        asked = {"paper": {"two global crops"}, "code": {"local crops"}}.get(self.search, set())
        return frozenset(asked if any(self.cross_weights) else ())

    def token_head(self, number: int, seen: Sequence[Sequence[Look]]) -> TOutputs | None:
        if self.t_head is None:
            return None
        first, *others = (look.layout for look in seen[number])
        if first.grid is None or any(other.grid is None for other in others):
            raise UserError(
                f"'{self._networks[number].name}' does not show how its tokens lie in an image, so that its T-Head cannot have "
                "positions: give square images, or set method.t_head to null"
            )
        widths = [looks[0].layout.width for looks, is_map in zip(seen, self.maps, strict=True) if not is_map]
        width = self.t_head.width or max(widths, default=_WIDTH)
        return TOutputs(self.t_head, first, width, self.outputs, project=self.search != "code")

    def trained(self, number: int, branch: Branch) -> list[tuple[str, list[nn.Module], Optimiser]]:
        (own,) = super().trained(number, branch)
        if branch.t_head is None:
            return [own]
        name, modules, optimiser = own
        if self.maps[number]:
            return [own, ("t-head", [branch.t_head], self.t_head_optimiser)]
        return [(name, [*modules, branch.t_head], optimiser)]

    def unsteady(self, number: int) -> str:
        settings = super().unsteady(number)
        return f"method.cross_weights, {settings}" if self.cross_weights[number] else settings

    def losses(
        self, number: int, own: Mapping[str, Tensor], said: Sequence[Said], heard: Sequence[Said], clock: Clock
    ) -> dict[str, tuple[float, Tensor]]:
        ours, other, weight = said[number], 1 - number, self.cross_weights[number]
        targets = [own["mlp"]]
        if weight:
            rising = self.teacher_temperature.at(clock, cnn=False)
            targets.append(self.learners[other].target("mlp", heard[other].mlp, rising))
        found = view_pairs(ours.mlp, targets, temperature=self.student_temperature)
        losses = {"self": (1.0, found[0])}
        if weight:
            losses["cross"] = (weight, found[1])
        if ours.tokens is None:
            return losses
        (loss,) = view_pairs(ours.tokens, [own["tokens"]], temperature=self.student_temperature)
        losses["self-tokens"] = (1.0, loss)
        if weight and self.search != "none":
            by = self._by_globals if self.search == "paper" else self._by_locals
            scores, target = by(number, ours, heard[other], clock)
            losses["cross-tokens"] = (weight, soft_targets(scores, target, temperature=self.student_temperature))
        return losses

    @torch.no_grad()
    def _asked(self, number: int, query: Tensor, keys: Tensor, layout: Layout) -> Tensor:
        """What the other twin's T-Head makes of its tokens beside a query, raw [B, K]."""
        return self._t_head(self.learners[1 - number].twin)(keys, layout, query)

    @staticmethod
    def _t_head(branch: Branch) -> TOutputs:
        assert branch.t_head is not None
        return branch.t_head

    def _by_globals(self, number: int, ours: Said, theirs: Said, clock: Clock) -> tuple[Tensor, Tensor]:
        """Eqs 6 and 7 for every ordered pair of global crops: the scores [pairs, B, K] of one, and the target asked by it of the
        other."""
        (mine, *_), (foreign, *_) = ours.seen, theirs.seen
        learner, head = self.learners[number], self._t_head(self.learners[number].branch)
        count = len(theirs.mlp)
        with torch.no_grad():
            queries = head.query(mine.tokens).unflatten(0, (count, -1))
        keys = foreign.tokens.unflatten(0, (count, -1))
        pairs = list(itertools.permutations(range(count), 2))
        asking = torch.cat([queries[a] for a, _ in pairs])
        asked = torch.cat([keys[b] for _, b in pairs])
        raw = self._asked(number, asking, asked, foreign.layout).unflatten(0, (len(pairs), -1))
        learner.gather("search", raw)
        target = learner.target("search", raw, self.teacher_temperature.at(clock, cnn=False))
        assert ours.tokens is not None
        return torch.stack([ours.tokens[a] for a, _ in pairs]), target

    def _by_locals(self, number: int, ours: Said, theirs: Said, clock: Clock) -> tuple[Tensor, Tensor]:
        """The public code's form: every local crop asks of the first global one, and its own scores learn the answer."""
        (_, mine), (foreign, *_) = ours.seen, theirs.seen
        head = self._t_head(self.learners[number].branch)
        count = len(theirs.mlp)
        assert ours.tokens is not None
        scores = ours.tokens[count:]
        with torch.no_grad():
            own = not self.maps[number] and isinstance(head.project, nn.Identity)
            queries = mine.features if own else head.query(mine.tokens)
        keys = foreign.tokens.unflatten(0, (count, -1))[0].repeat(len(scores), 1, 1)
        raw = self._asked(number, queries, keys, foreign.layout).unflatten(0, (len(scores), -1))
        return scores, (raw.float() / self.teacher_temperature.at(clock, cnn=False)).softmax(-1)
