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


def mlp(layer):
    """The weights of a layer's neurons, one row a neuron."""
    block = layer.mlp
    into = [getattr(block, name) for name in ("gate_proj", "up_proj", "fc1") if hasattr(block, name)]
    return [*(one.weight for one in into), (block.down_proj if hasattr(block, "down_proj") else block.fc2).weight.T]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["gemma2", "cohere", "granite", "phi"])
@torch.no_grad()
def test_other_families_lose_their_dead_neurons_too(name, dtype, family):
    """Biases of zero (phi) and norms that say nothing (gemma) have no say in who is kept."""
    body = family(name).to(dtype)
    for layer in body.model.layers:
        for weight in mlp(layer):
            weight[8:32].mul_(1e-3)
    small = narrow(body, "intermediate_size", 40, "test")
    kept = torch.tensor([*range(8), *range(32, 64)])
    for ours, theirs in zip(small.model.layers, body.model.layers, strict=True):
        for one, whole in zip(mlp(ours), mlp(theirs), strict=True):
            assert torch.equal(one, whole[kept])


@torch.no_grad()
def test_the_channels_that_are_kept_are_those_of_the_matrices_each_counted_once(family):
    """Tied embeddings are one matrix; the norms of gemma, whose weights are what is added to 1, are none."""
    body = family("gemma2")
    assert body.lm_head.weight.data_ptr() == body.model.embed_tokens.weight.data_ptr()
    for path, weight in body.named_parameters():
        if weight.dim() == 2:
            weight.movedim(0 if path.endswith(("o_proj.weight", "down_proj.weight")) else 1, 0)[:16].mul_(1e-3)
        else:
            weight[:16] = -1.0
    small = narrow(body, "hidden_size", 16, "test")
    assert torch.equal(small.model.embed_tokens.weight, body.model.embed_tokens.weight[:, 16:])


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


def test_weights_of_four_bits_are_not_cut(llama):
    pytest.importorskip("bitsandbytes", exc_type=ImportError)
    with pytest.raises(UserError, match="weights of 4 bits cannot be made narrower: leave bits out"):
        load_language(f"hf:{llama()},bits=4,hidden_size=8")


@pytest.mark.parametrize("wanted", [0, 17, 2.5, "wide"])
def test_values_that_are_no_smaller_number(llama, wanted):
    with pytest.raises(UserError, match="'hidden_size of .* set it to a number from 1 to 16"):
        load_language(f"hf:{llama()},hidden_size={wanted}")
