"""Contrastive representation distillation (Tian et al., arXiv 1910.10699): two embeddings and their memory banks."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osmose.errors import check
from osmose.losses import noise_contrast
from osmose.processes import all_gather, all_reduce


@dataclass(frozen=True, kw_only=True)
class Bank:
    """Settings of CRD's embeddings and memory banks; the defaults are those of arXiv 1910.10699.

    Args:
        width: numbers in an embedding.
        size: embeddings that are kept of each network; of more samples the latest stay.
        negatives: embeddings of other classes that a sample is contrasted with, drawn anew at each step.
        temperature: what cosines are divided by.
        momentum: share of a sample's old embedding that stays when it is seen again.
    """

    width: int = 128
    size: int = 65536
    negatives: int = 16384
    temperature: float = 0.07
    momentum: float = 0.5

    def __post_init__(self) -> None:
        for key in ("width", "size", "negatives"):
            check(getattr(self, key) >= 1, f"method.bank.{key}", getattr(self, key), "at least 1")
        check(self.temperature > 0, "method.bank.temperature", self.temperature, "a number above 0")
        check(0 <= self.momentum < 1, "method.bank.momentum", self.momentum, "a share from 0 to below 1")


class Seen(NamedTuple):
    """Samples that a process has seen in a step and the bank has not.

    Attributes:
        numbers: int64 [n] sample numbers.
        labels: int64 [n].
        embeddings: float32 [2, n, width], the student's and the teacher's.
    """

    numbers: Tensor
    labels: Tensor
    embeddings: Tensor


class MemoryBank(nn.Module):
    """Two networks' embeddings of up to `rows` samples; the i-th sample has row i modulo their number. Equal on every process.

    Args:
        width: numbers in an embedding.
        rows: how many samples are kept.
        momentum: share of the old embedding that stays.
    """

    embeddings: Tensor
    owners: Tensor
    labels: Tensor

    def __init__(self, width: int, rows: int, momentum: float) -> None:
        super().__init__()
        self.rows, self.momentum = rows, momentum
        spare = rows + 1  # the last row takes what is not to be written
        self.register_buffer("embeddings", torch.zeros(2, spare, width))
        self.register_buffer("owners", torch.full((spare,), -1))
        self.register_buffer("labels", torch.full((spare,), -1))

    def own(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [2, n, width] in the rows of samples `index` [n], and whether they are those samples' own."""
        rows = index % self.rows
        return self.embeddings[:, rows], self.owners[rows] == index

    def others(self, rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [2, k, width] in `rows` [k], and booleans [n, k]: which are of another class than `labels` [n]."""
        theirs = self.labels[rows]
        return self.embeddings[:, rows], (theirs != labels.unsqueeze(-1)) & (theirs >= 0)

    @torch.no_grad()
    def write(self, seen: Seen) -> None:
        """Keep what all processes have seen; of two samples with the same row that with the higher number stays."""
        index, labels = all_gather(seen.numbers), all_gather(seen.labels)
        new = all_gather(seen.embeddings.transpose(0, 1)).transpose(0, 1)
        rows = index % self.rows
        last = index.new_full((self.rows + 1,), -1).scatter_reduce(0, rows, index, "amax")
        old, own = self.own(index)
        blended = F.normalize(self.momentum * old + (1 - self.momentum) * new, dim=-1)
        written = torch.where(own.unsqueeze(-1), blended, new)
        rows = torch.where(last[rows] == index, rows, self.rows)
        self.embeddings[:, rows] = written
        self.owners[rows] = index
        self.labels[rows] = labels
        self.labels[-1] = -1


class CRD(nn.Module):
    """The loss of CRD: learned linear embeddings of both networks' features, each contrasted with the other's memory bank.

    A sample's positive is the other network's embedding of it from when it was last seen, that is in another view; or from this
    view where the bank has none. Rows that were never written are no negatives.

    Args:
        settings: embeddings and banks.
        widths: numbers of features of student and teacher.
        numbers: int64 [n], the training samples' numbers.
    """

    log_z: Tensor
    sums: Tensor
    places: Tensor

    def __init__(self, settings: Bank, widths: tuple[int, int], numbers: Tensor) -> None:
        super().__init__()
        self.settings = settings
        self.embeddings = nn.ModuleList(nn.Linear(width, settings.width) for width in widths)
        self.memory = MemoryBank(settings.width, min(settings.size, len(numbers)), settings.momentum)
        places = torch.zeros(int(numbers.max()) + 1, dtype=torch.int64)
        places[numbers] = torch.arange(len(numbers))
        self.register_buffer("places", places, persistent=False)
        self.seen: list[Seen] = []
        self.register_buffer("log_z", torch.full((2,), math.nan))
        self.register_buffer("sums", torch.zeros(2, 2), persistent=False)

    def forward(self, features: tuple[Tensor, Tensor], index: Tensor, labels: Tensor, drawn: torch.Generator) -> Tensor:
        """The sum of both directions' `noise_contrast`, in float32.

        Args:
            features: the student's and the teacher's [n, width] each.
            index: int64 [n] sample numbers.
            labels: int64 [n].
            drawn: where the choice of negatives comes from.
        """
        index = self.places[index]
        with torch.autocast(index.device.type, enabled=False):
            unit = torch.stack([
                F.normalize(embed(one.float()), dim=-1) for embed, one in zip(self.embeddings, features, strict=True)
            ])  # fmt: skip
            old, own = self.memory.own(index)
            rows = torch.randint(self.memory.rows, (self.settings.negatives,), generator=drawn).to(index.device)
            others, valid = self.memory.others(rows, labels)
            positives = torch.where(own.unsqueeze(-1), old, unit.detach()).flip(0)
            positive = (unit * positives).sum(-1) / self.settings.temperature
            negatives = unit @ others.flip(0).transpose(1, 2) / self.settings.temperature
        self.seen.append(Seen(index, labels, unit.detach()))
        log_z = self._normaliser(negatives.detach(), valid)
        student, teacher = (
            noise_contrast(positive[one], negatives[one], valid, log_z=log_z[one], rows=self.memory.rows)
            for one in (0, 1)
        )
        return student + teacher

    def after_step(self) -> None:
        """Keep what was seen; fix Z after the first step that had negatives."""
        numbers, labels, embeddings = zip(*self.seen, strict=True)
        self.memory.write(Seen(torch.cat(numbers), torch.cat(labels), torch.cat(embeddings, 1)))
        self.seen.clear()
        sums = all_reduce(self.sums, "sum")
        self.log_z.copy_(torch.where(self.log_z.isnan() & (sums[1] > 0), self._first(sums), self.log_z))
        self.sums.zero_()

    def _normaliser(self, negatives: Tensor, valid: Tensor) -> Tensor:
        """log Z [2]: what makes the mean P of the first negatives 1 / N."""
        below = negatives - 1 / self.settings.temperature  # the highest score there can be, so that exp stays finite
        total = below.exp().where(valid, negatives.new_zeros(())).sum((1, 2))
        sums = torch.stack([total, valid.sum().to(total.dtype).expand(2)])
        self.sums += sums
        return torch.where(self.log_z.isnan(), self._first(sums), self.log_z)

    def _first(self, sums: Tensor) -> Tensor:
        total, count = sums
        mean = (total / count.clamp(min=1)).clamp(min=torch.finfo(total.dtype).tiny)
        return mean.log() + 1 / self.settings.temperature + math.log(self.memory.rows)
