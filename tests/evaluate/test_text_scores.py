"""Scores of text by hand, from a language model whose probabilities are known."""

import json
import math

import pytest
import torch

pytest.importorskip("transformers")

from osmose.data.corpus import load_text
from osmose.evaluate.language import changed_tokens, retention, score_tokens, text_numbers
from osmose.models.load_language import load_language


@pytest.fixture
def passages(bytewise, tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "x"}')
    lines = [
        json.dumps({"text": text}) for text in ("an old cat", "the hat.", "one long text that takes several blocks")
    ]
    (tmp_path / "test.jsonl").write_text("\n".join(lines))
    return load_text(f"text:{tmp_path}", bytewise, length=16, heldout=0).test()


def test_scores_are_those_of_transformers_document_by_document(llama, bytewise, passages):
    """Log-probabilities and best guesses of parts of documents, each run alone behind its first token."""
    model = load_language(f"hf:{llama()}")
    scores = score_tokens(model, passages, batch_size=2)
    labels = passages.split.labels
    x = passages.split.inputs.read(torch.arange(len(labels)))
    for row in range(len(labels)):
        for document in x[row, 1][x[row, 1] >= 0].unique():
            places = (x[row, 1] == document).nonzero().flatten()
            tokens = x[row, 0, places].long()
            with torch.no_grad():
                log_p = model.body(tokens[None]).logits[0].log_softmax(-1)
            known = log_p[:-1].gather(-1, tokens[1:, None]).squeeze(-1)
            asked = labels[row, places[:-1]] != -100  # not what is only read before the last part of a document
            torch.testing.assert_close(scores[0, row, places[:-1]][asked], known[asked], rtol=1e-4, atol=1e-4)
            right = log_p[:-1].argmax(-1) == tokens[1:]
            assert torch.equal(scores[1, row, places[:-1]][asked].bool(), right[asked])
    assert (scores[:, labels == -100] == 0).all()
    halves = [score_tokens(model, passages, batch_size=1, shard=shard, shards=2) for shard in range(2)]
    torch.testing.assert_close(sum(halves), scores)
    assert not model.training


def test_perplexities_of_what_is_nearly_impossible_are_finite(passages):
    scores = torch.zeros(2, *passages.split.labels.shape)
    scores[0][passages.split.labels != -100] = -1000
    numbers = text_numbers(scores, passages)
    assert numbers["loss"] == 1000
    assert 1e300 < numbers["perplexity"] < math.inf


def test_numbers_by_hand(passages):
    """Every token has probability 1/4; of the last words "cat" is right, "hat" has one wrong byte."""
    labels, last = passages.split.labels, passages.last_word
    counted = labels != -100
    tokens = len("an old cat") + len("the hat.") + len("one long text that takes several blocks")
    assert int(counted.sum()) == tokens
    scores = torch.zeros(2, *labels.shape)
    scores[0][counted] = -math.log(4)
    scores[1][last == 0] = 1
    scores[1][(last == 1).nonzero()[:2].unbind(-1)] = 1
    numbers = text_numbers(scores, passages)
    assert numbers["tokens"] == tokens
    assert numbers["loss"] == pytest.approx(math.log(4))
    assert numbers["perplexity"] == pytest.approx(4)
    assert numbers["bits_per_byte"] == pytest.approx(2)
    assert numbers["word_perplexity"] == pytest.approx(4 ** (tokens / 12))
    assert numbers["token_accuracy"] == pytest.approx(100 * 5 / tokens)
    assert numbers["last_word_accuracy"] == pytest.approx(100 / 3)


def test_changes_and_retention(passages):
    counted = passages.split.labels != -100
    before, after = torch.zeros(2, 2, *counted.shape)
    rows, columns = counted.nonzero().unbind(-1)
    before[1, rows[:4], columns[:4]] = 1
    after[1, rows[3:9], columns[3:9]] = 1
    found = changed_tokens(before, after, passages)
    assert found["knowledge_gain"] == pytest.approx(100 * 5 / len(rows))
    assert found["knowledge_loss"] == pytest.approx(100 * 3 / len(rows))
    student = {"token_accuracy": 30.0, "last_word_accuracy": 10.0, "perplexity": 30.0}
    teacher = {"token_accuracy": 40.0, "last_word_accuracy": 0.0, "perplexity": 20.0}
    assert retention(student, teacher) == {"token_accuracy": 75.0, "perplexity_ratio": 1.5}


def test_evaluate_scores_text(llama, prose):
    from osmose import api

    found = api.evaluate(f"hf:{llama()}", data={"name": prose, "length": 24}, part="heldout")
    model = load_language(f"hf:{llama()}")
    corpus = load_text(prose, model.tokenizer, length=24)
    wanted = text_numbers(score_tokens(model, corpus.heldout), corpus.heldout)
    assert {key: found[key] for key in wanted} == wanted
    assert found["documents"] == 3
