"""What a frozen language model says of each token, against its logits from transformers."""

import pytest
import torch

pytest.importorskip("transformers")

from osmose.data.batch import Batch
from osmose.errors import UserError
from osmose.losses.language import SampledTokens, States, TopTokens
from osmose.models.load_language import load_language
from osmose.signals.encoding import Whole
from osmose.signals.tokens import HIDDEN, KNOWN, SAMPLED, SURE, TOP, FrozenLanguage, Speech


@pytest.fixture(scope="module")
def model(llama):
    return load_language(f"hf:{llama()}")


@pytest.fixture(scope="module")
def batch():
    tokens = torch.randint(0, 256, (3, 20), generator=torch.Generator().manual_seed(0))
    documents = (torch.arange(20) >= 8).long().expand(3, -1)
    return Batch(index=torch.arange(3), view=0, x=torch.stack([tokens, documents], dim=1), y=None)


@pytest.fixture(scope="module")
def logits(model, batch):
    """By document, from transformers itself."""
    with torch.no_grad():
        parts = [
            [model.body(row[None, some]).logits[0] for some in (slice(0, 8), slice(8, 20))] for row in batch.x[:, 0]
        ]
    return torch.stack([torch.cat(part) for part in parts])


def near(given, wanted):
    torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4)


def test_the_true_and_the_most_probable_token(model, batch, logits):
    frozen = FrozenLanguage(model)
    log_p = logits.log_softmax(-1)
    near(frozen.signal(batch, SURE), log_p.amax(-1))
    known = log_p[:, :-1].gather(-1, batch.x[:, 0, 1:, None]).squeeze(-1)
    near(frozen.signal(batch, KNOWN)[:, :-1], known)
    assert (frozen.signal(batch, KNOWN)[:, -1] == 0).all()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_top_tokens(model, batch, logits, temperature):
    frozen = FrozenLanguage(model, speech=Speech(top_k=5, temperature=temperature))
    said = frozen.teach(batch)
    best = (logits / temperature).log_softmax(-1).topk(5)
    assert isinstance(said, TopTokens)
    assert torch.equal(said.ids, best.indices.flatten(0, 1))
    near(said.log_probabilities, best.values.flatten(0, 1))
    near(said.rest.exp(), 1 - best.values.exp().sum(-1).flatten())


def test_states_are_kept_under_one_key_whatever_the_student_has_of_the_tokens(model):
    """And what is said of tokens under another for each size of the common vocabulary."""
    keys = []
    for fields in ([HIDDEN], [HIDDEN, KNOWN]):
        for vocabulary in (None, 257):
            frozen = FrozenLanguage(model, vocabulary=vocabulary)
            frozen.expect(fields)
            keys.append(frozen.key)
    assert keys == [{}, {}, {}, {"vocabulary": 257}]


def test_hidden_states_give_all_logits(model, batch, logits):
    said = FrozenLanguage(model).teach(batch)
    assert isinstance(said, States)
    near(said.hidden @ said.head.weight.T, logits.flatten(0, 1))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_sampled_tokens_have_the_distribution_on_average(model, batch, logits, temperature):
    """Of 400 seeds with 25 draws each; weights sum to one, tokens of a row differ, and the entropy is that of all tokens."""
    wanted = (logits / temperature).softmax(-1).flatten(0, 1)
    mean = torch.zeros_like(wanted)
    for seed in range(400):
        said = FrozenLanguage(model, speech=Speech(samples=25, temperature=temperature, seed=seed)).teach(batch)
        assert isinstance(said, SampledTokens)
        torch.testing.assert_close(said.weights.sum(-1), torch.ones(60))
        mean.scatter_add_(-1, said.ids, said.weights / 400)
    for ids, weights in zip(said.ids, said.weights, strict=True):
        assert len(ids[weights > 0].unique()) == (weights > 0).sum()
    near(said.entropy, -(wanted * wanted.log()).sum(-1))
    error = (mean - wanted) / (wanted * (1 - wanted) / 10_000).sqrt().clamp(min=1e-4)
    assert error.abs().max() < 6


def test_draws_are_a_blocks_own(model, batch):
    """A block has the same draws alone as in company, and other seeds have others."""
    speech = Speech(samples=4)
    whole = FrozenLanguage(model, speech=speech).say(batch.x, SAMPLED)
    alone = FrozenLanguage(model, speech=speech).say(batch.x[1:2], SAMPLED)
    assert torch.equal(whole[SAMPLED[0]][1], alone[SAMPLED[0]][0])
    other = FrozenLanguage(model, speech=Speech(samples=4, seed=1)).say(batch.x[1:2], SAMPLED)
    assert not torch.equal(other[SAMPLED[0]], alone[SAMPLED[0]])


def test_as_many_as_there_are_is_refused(model):
    with pytest.raises(UserError, match=r"key 'signals.top_k' is 258: set it to below the size of the vocabulary, 258"):
        FrozenLanguage(model, speech=Speech(top_k=258))


@pytest.mark.parametrize(("count", "width"), [(256, 1), (257, 2), (65536, 2), (65537, 3), (151_936, 3), (2**25, 4)])
def test_whole_numbers_come_back_from_disk(count, width):
    encoding = Whole((4, 3), count)
    values = torch.randint(0, count, (7, 4, 3), generator=torch.Generator().manual_seed(0))
    values[0, 0] = torch.tensor([0, 1, count - 1])
    raw = encoding.encode(values, None)
    assert raw.shape == (7, encoding.size) == (7, 12 * width)
    assert torch.equal(encoding.decode(raw), values)


def test_each_field_has_its_encoding(model, batch):
    """What is written is what is read, whole numbers and float32 to the bit."""
    for speech in (Speech(), Speech(top_k=4), Speech(samples=4)):
        frozen = FrozenLanguage(model, speech=speech)
        frozen.expect((*speech.fields, KNOWN, SURE))
        said = frozen.say(batch.x, frozen.fields)
        encodings = frozen.encodings((2, 20), "float32", None)
        assert set(encodings) == set(said)
        for name, encoding in encodings.items():
            assert torch.equal(encoding.decode(encoding.encode(said[name], None)), said[name])
    assert HIDDEN in FrozenLanguage(model).say(batch.x, [HIDDEN])
    assert set(TOP) <= set(FrozenLanguage(model, speech=Speech(top_k=4)).say(batch.x, TOP))
