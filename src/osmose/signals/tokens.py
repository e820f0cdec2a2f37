"""Language models that only speak: what they say of each position of a block of tokens."""

import math
import zlib
from collections.abc import Iterable, Set
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from osmose.data.batch import Batch
from osmose.errors import check
from osmose.losses.language import SampledTokens, States, Teacher, TopTokens
from osmose.models.language import LanguageModel
from osmose.random import generator
from osmose.signals.encoding import Dense, Encoding, Whole
from osmose.signals.speaker import Speaker

HIDDEN = "hidden"
KNOWN, SURE = "known", "sure"
"""Log-probabilities of the true token and of the most probable one, at temperature 1."""
TOP = ("top-tokens", "top-log-probabilities", "top-rest")
SAMPLED = ("sampled-tokens", "sampled-weights", "sampled-entropy")
_ROWS = 128
"""Positions whose logits are held at a time."""


@dataclass(frozen=True)
class Speech:
    """In which form a language model says what may come next.

    Attributes:
        top_k: its k most probable tokens; None: all, by its hidden states.
        samples: so many tokens drawn from what it says, in place of the most probable.
        temperature: at which both are taken.
        seed: of the draws, which are the same for a block wherever it is read.
    """

    top_k: int | None = None
    samples: int | None = None
    temperature: float = 1.0
    seed: int = 0

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that hold it."""
        return TOP if self.top_k else SAMPLED if self.samples else (HIDDEN,)


class FrozenLanguage(Speaker):
    """A language model that never trains.

    Args:
        network: the model.
        device: where it runs.
        mixed: as for `Speaker`.
        speech: in which form it teaches.
        vocabulary: how many tokens, from the first on, it and those whom it teaches have; none for all of its own.
    """

    network: LanguageModel
    libraries: ClassVar[tuple[str, ...]] = ("transformers",)

    def __init__(
        self,
        network: LanguageModel,
        device: torch.device | str = "cpu",
        *,
        mixed: bool = False,
        speech: Speech = Speech(),
        vocabulary: int | None = None,
    ) -> None:
        super().__init__(network, device, mixed=mixed)
        self.speech = speech
        self.vocabulary = vocabulary = vocabulary or network.vocabulary
        for key in ("top_k", "samples"):
            value = getattr(speech, key)
            check(
                value is None or value < vocabulary,
                f"signals.{key}",
                value,
                f"below the size of the vocabulary, {vocabulary}",
            )

    def teach(self, batch: Batch) -> Teacher:
        """What it says of all positions of a batch [B * L], for `osmose.losses.distil_tokens`."""
        first, *more = (self.signal(batch, name).flatten(0, 1) for name in self.speech.fields)
        if self.speech.top_k:
            return TopTokens(first, *more)
        if self.speech.samples:
            return SampledTokens(first, *more)
        return States(first, self.network.head, self.mixed)

    @property
    def key(self) -> dict[str, Any]:
        """The form of its speech, where it is not all that it says, and of how many tokens it is, where it has others."""
        key: dict[str, Any] = {} if self.speech.fields == (HIDDEN,) else {"speech": asdict(self.speech)}
        whole = self.vocabulary == self.network.vocabulary or set(self.fields) <= {HIDDEN}
        return key if whole else {**key, "vocabulary": self.vocabulary}

    def encodings(self, shape: tuple[int, ...], dtype: str, top_k: int | None) -> dict[str, Encoding]:
        """How each of `fields` is kept on disk; tokens as whole numbers, all else in the given type."""
        length = shape[-1]
        width = self.network.head.weight.shape[1]
        many = self.speech.top_k or self.speech.samples or 0
        each: dict[str, Encoding] = {
            HIDDEN: Dense((length, width), dtype),
            KNOWN: Dense((length,), "float32"),
            SURE: Dense((length,), "float32"),
            TOP[0]: Whole((length, many), self.network.vocabulary),
            TOP[1]: Dense((length, many), dtype),
            TOP[2]: Dense((length,), "float32"),
            SAMPLED[0]: Whole((length, many), self.network.vocabulary),
            SAMPLED[1]: Dense((length, many), dtype),
            SAMPLED[2]: Dense((length,), "float32"),
        }
        return {name: each[name] for name in self.fields}

    @torch.no_grad()
    def say(self, x: Tensor, fields: Iterable[str]) -> dict[str, Tensor]:
        """Fields of each position of blocks x, int64 [n, 2, L]; `KNOWN` is 0 at the last one."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.mixed):
            hidden = self.network(x).hidden
        hidden, fields = hidden.float(), set(fields)
        if fields <= {HIDDEN}:
            return {HIDDEN: hidden.contiguous()}
        said = [self._say_of(tokens, states, fields) for tokens, states in zip(x[:, 0], hidden, strict=True)]
        found = {name: torch.stack([one[name] for one in said]) for name in fields - {HIDDEN}}
        return found | ({HIDDEN: hidden.contiguous()} if HIDDEN in fields else {})

    def _say_of(self, tokens: Tensor, hidden: Tensor, fields: Set[str]) -> dict[str, Tensor]:
        """The same of one block, some positions at a time: equal whatever block it stands beside."""
        draws = None if fields.isdisjoint(SAMPLED) else self._draws(tokens)
        known = tokens.roll(-1)
        parts = []
        head, vocabulary = self.network.head, self.vocabulary
        for start in range(0, len(tokens), _ROWS):
            rows = slice(start, start + _ROWS)
            logits = head.logits(hidden[rows], vocabulary, hidden.new_empty(len(hidden[rows]), vocabulary))
            parts.append(self._part(logits, known[rows], fields, None if draws is None else draws[rows]))
        found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        if KNOWN in found:
            found[KNOWN][-1] = 0
        return found

    def _part(self, logits: Tensor, known: Tensor, fields: Set[str], draws: Tensor | None) -> dict[str, Tensor]:
        found, speech = {}, self.speech
        if KNOWN in fields or SURE in fields:
            total = logits.logsumexp(-1)
            found = {KNOWN: logits.gather(-1, known[:, None]).squeeze(-1) - total, SURE: logits.amax(-1) - total}
        if not fields.isdisjoint(TOP):
            log_p = (logits / speech.temperature).log_softmax(-1)
            best, ids = log_p.topk(speech.top_k or 0)
            found |= {TOP[0]: ids, TOP[1]: best, TOP[2]: log_p.scatter(-1, ids, -math.inf).logsumexp(-1)}
        if draws is not None:
            log_p = (logits / speech.temperature).log_softmax(-1)
            ids, weights = _sampled(log_p.exp(), draws)
            found |= {SAMPLED[0]: ids, SAMPLED[1]: weights, SAMPLED[2]: -(log_p.exp() * log_p).sum(-1)}
        return {name: values for name, values in found.items() if name in fields}

    def _draws(self, tokens: Tensor) -> Tensor:
        """Uniform numbers [L, samples] that depend on the block's tokens and the seed alone."""
        content = zlib.crc32(tokens.cpu().numpy().tobytes())
        drawn = torch.rand(
            len(tokens), self.speech.samples or 0, generator=generator(self.speech.seed, "signals/sampled", content),
            dtype=torch.float64,
        )  # fmt: skip
        return drawn.to(tokens.device)


def _sampled(probabilities: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens drawn by uniform numbers [n, k], different ones in a row but for those of weight 0, and the shares of the draws."""
    cumulative = probabilities.double().cumsum(-1)
    ids = (
        torch.searchsorted(cumulative, draws * cumulative[:, -1:])
        .clamp(max=probabilities.shape[-1] - 1)
        .sort(-1)
        .values
    )
    first = torch.ones_like(ids, dtype=torch.bool)
    first[:, 1:] = ids[:, 1:] != ids[:, :-1]
    places = first.cumsum(-1) - 1
    weights = torch.zeros_like(draws).scatter_add_(-1, places, torch.full_like(draws, 1 / draws.shape[-1]))
    packed = torch.zeros_like(ids).scatter_(-1, places, ids)
    return packed, weights.float()
