"""Trained language models made narrower: what is kept, that it is the model without the rest, and what is refused."""

import pytest
import torch

transformers = pytest.importorskip("transformers")

from osmose import torchvision_ops  # noqa: E402

torchvision_ops.install()

from osmose.errors import UserError  # noqa: E402
from osmose.models.load_language import load_language  # noqa: E402
from osmose.models.narrow import narrow  # noqa: E402

TOKENS = torch.arange(3, 15)[None]


@torch.no_grad()
def logits(body):
    return body(TOKENS, use_cache=False).logits


@torch.no_grad()
def test_neurons_that_do_nothing_go_first(family):
    """Which neurons are dead differs from layer to layer; without them the model says the same."""
    body = family("llama")
    for layer, dead in zip(body.model.layers, (slice(0, 16), slice(40, 56)), strict=True):
        for weight in (
            layer.mlp.gate_proj.weight[dead],
            layer.mlp.up_proj.weight[dead],
            layer.mlp.down_proj.weight.T[dead],
        ):
            weight.mul_(1e-4)
    small = narrow(body, "intermediate_size", 48, "test")
    assert small.config.intermediate_size == 48
    assert small.model.layers[0].mlp.down_proj.weight.shape == (32, 48)
    assert torch.equal(small.model.layers[0].mlp.gate_proj.weight, body.model.layers[0].mlp.gate_proj.weight[16:])
    torch.testing.assert_close(logits(small), logits(body), rtol=0, atol=1e-5)


@torch.no_grad()
def test_heads_go_with_the_keys_and_values_that_they_share(family):
    """Four heads, of which two share keys and values: the first layer loses its first pair, the second its second."""
    body = family("llama")
    for number, layer in enumerate(body.model.layers):
        attention = layer.self_attn
        attention.v_proj.weight[8 * number : 8 * number + 8] *= 1e-4
        attention.o_proj.weight[:, 16 * number : 16 * number + 16] *= 1e-4
    small = narrow(body, "num_attention_heads", 2, "test")
    assert (small.config.num_attention_heads, small.config.num_key_value_heads, small.config.head_dim) == (2, 1, 8)
    first, second = (layer.self_attn for layer in body.model.layers)
    assert torch.equal(small.model.layers[0].self_attn.q_proj.weight, first.q_proj.weight[16:])
    assert torch.equal(small.model.layers[1].self_attn.k_proj.weight, second.k_proj.weight[:8])
    torch.testing.assert_close(logits(small), logits(body), rtol=0, atol=1e-5)
    with pytest.raises(UserError, match="'num_attention_heads of 'test'' is 3: set it to a multiple of 2, which share"):
        narrow(body, "num_attention_heads", 3, "test")


@torch.no_grad()
def test_channels_are_the_same_everywhere(family):
    """Channels of nothing are dropped; in a norm's mean they counted, so its output is that many times smaller."""
    body = family("llama")
    kept = torch.tensor([place for place in range(32) if place % 4])
    dead = torch.arange(0, 32, 4)
    for path, weight in body.named_parameters():
        dimension = 0 if path.endswith(("o_proj.weight", "down_proj.weight")) else weight.dim() - 1
        weight.index_fill_(dimension, dead, 0.0)
    small = narrow(body, "hidden_size", 24, "test")
    assert (small.config.hidden_size, small.config.head_dim) == (24, 8)
    assert torch.equal(small.model.embed_tokens.weight, body.model.embed_tokens.weight[:, kept])
    for module in small.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon *= 32 / 24
            module.weight.mul_((32 / 24) ** 0.5)
    torch.testing.assert_close(logits(small), logits(body), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gemma2", "cohere", "granite", "phi"])
def test_families_whose_layers_can_be_narrowed(name, family):
    """The check in `narrow` itself compares with the model whose other neurons are zero."""
    assert narrow(family(name), "intermediate_size", 40, "test").config.intermediate_size == 40


@pytest.mark.parametrize(
    ("name", "key", "wanted"),
    [
        ("gpt2", "hidden_size", 24),  # heads become narrower with it
        ("neox", "num_attention_heads", 2),  # queries, keys and values in one matrix
        ("opt", "hidden_size", 24),
        ("opt", "intermediate_size", 40),  # it is ffn_dim here
    ],
)
def test_what_the_shapes_do_not_tell_is_refused(name, key, wanted, family):
    with pytest.raises(
        UserError, match=f"do not tell which belong to one of {key}: leave {key} out, or use fresh:test"
    ):
        narrow(family(name), key, wanted, "test")


def test_by_name_with_layers_and_back_from_disk(llama, tmp_path):
    small = load_language(f"hf:{llama()},layers=2,hidden_size=12,intermediate_size=16,num_attention_heads=2")
    config = small.body.config
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (2, 12, 16)
    small.save(tmp_path / "small")
    again = load_language(f"hf:{tmp_path / 'small'}")
    torch.testing.assert_close(logits(again.body), logits(small.body))
    whole = load_language(f"hf:{llama()}")
    assert narrow(whole.body, "hidden_size", whole.body.config.hidden_size, "test") is whole.body


@pytest.mark.parametrize("wanted", [0, 17, 2.5, "wide"])
def test_values_that_are_no_smaller_number(llama, wanted):
    with pytest.raises(UserError, match="'hidden_size of .* set it to a number from 1 to 16"):
        load_language(f"hf:{llama()},hidden_size={wanted}")
