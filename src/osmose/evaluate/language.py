"""How well a language model predicts text, token by token."""

import math
from typing import Any

import torch
from torch import Tensor

from osmose.data.corpus import Passages
from osmose.evaluate.flips import negative_flips, positive_flips
from osmose.losses.language import IGNORED
from osmose.models.language import LanguageModel
from osmose.models.model import evaluating

_ROWS = 256
"""Positions whose logits are held at a time."""


def score_tokens(
    model: LanguageModel,
    passages: Passages,
    *,
    batch_size: int = 8,
    shard: int = 0,
    shards: int = 1,
    mixed: bool = False,
) -> Tensor:
    """What a model makes of every label: float32 [2, N, L] on the CPU, its log-probability in nats, and 1 where it is the most
    probable token; 0 where there is no label.

    Args:
        model: the model, on its device; it is put into evaluation mode and back.
        passages: the text.
        batch_size: blocks in one forward pass.
        shard: with `shards` > 1 only every `shards`-th batch from this one is computed; the sum over all shards is the whole.
        shards: processes that share the work.
        mixed: compute in bfloat16 where torch's autocast finds it safe.
    """
    split = passages.split
    assert split.labels is not None
    scores = torch.zeros(2, *split.labels.shape)
    with evaluating(model):
        head, vocabulary = model.head, model.vocabulary
        batches = torch.arange(len(split)).split(batch_size)
        for first in range(0, len(batches), shards):
            # A model that is spread over processes runs in all of them at once: at the end some do a batch for nothing.
            mine = first + shard < len(batches)
            rows = batches[first + shard if mine else -1]
            with torch.autocast(model.device.type, torch.bfloat16, enabled=mixed):
                hidden = model(split.inputs.read(rows).long().to(model.device)).hidden.flatten(0, 1)
            if not mine:
                break
            labels = split.labels[rows].long().to(model.device).flatten()
            (counted,) = (labels != IGNORED).nonzero(as_tuple=True)
            found = torch.zeros(2, len(labels))
            for some in counted.split(_ROWS):
                states, wanted = hidden[some].float(), labels[some]
                logits = head.logits(states, vocabulary, states.new_empty(len(some), vocabulary))
                said = logits.gather(-1, wanted[:, None]).squeeze(-1)
                found[0, some.cpu()] = (said - logits.logsumexp(-1)).cpu()
                found[1, some.cpu()] = (logits.argmax(-1) == wanted).float().cpu()
            scores[:, rows] = found.view(2, len(rows), -1)
    return scores


def text_numbers(scores: Tensor, passages: Passages) -> dict[str, float]:
    """Perplexities and accuracies in percent, from what `score_tokens` gives.

    Returns:
        "loss" in nats a token, "perplexity" of a token, "word_perplexity", "bits_per_byte", "token_accuracy", and
        "last_word_accuracy", the share of documents of whose last word every token is the most probable one.
    """
    assert passages.split.labels is not None
    counted = passages.split.labels != IGNORED
    tokens = int(counted.sum())
    nats = -scores[0].double().sum().item()
    last, right = passages.last_word.flatten(), scores[1].flatten()
    members = last >= 0
    wrong = torch.zeros(passages.documents).index_add_(0, last[members], 1 - right[members])
    asked = torch.zeros(passages.documents, dtype=torch.bool).index_fill_(0, last[members].unique(), True)
    return {
        "tokens": tokens,
        "loss": nats / tokens,
        "perplexity": math.exp(min(700.0, nats / tokens)),
        "word_perplexity": math.exp(min(700.0, nats / max(1, passages.words))),
        "bits_per_byte": nats / math.log(2) / max(1, passages.bytes),
        "token_accuracy": 100 * scores[1].double().sum().item() / tokens,
        "last_word_accuracy": 100 * ((wrong == 0) & asked).sum().item() / max(1, int(asked.sum())),
    }


def changed_tokens(before: Tensor, after: Tensor, passages: Passages) -> dict[str, float]:
    """Tokens newly predicted and no longer predicted, in percent of all."""
    assert passages.split.labels is not None
    counted = passages.split.labels != IGNORED
    was, now = (scores[1][counted].bool() for scores in (before, after))
    return {"knowledge_gain": positive_flips(was, now), "knowledge_loss": negative_flips(was, now)}


def retention(student: dict[str, Any], teacher: dict[str, Any]) -> dict[str, float]:
    """The share of the teacher's accuracies that the student has, in percent, and the student's perplexity over the teacher's."""
    kept = {
        name: 100 * student[name] / teacher[name] for name in ("token_accuracy", "last_word_accuracy") if teacher[name]
    }
    return kept | {"perplexity_ratio": student["perplexity"] / teacher["perplexity"]}
