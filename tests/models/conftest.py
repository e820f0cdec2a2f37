"""Small language models of several families."""

import pytest
import torch

COMMON = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = {
    **COMMON,
    "intermediate_size": 64,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@pytest.fixture(scope="session")
def family():
    """A function from a family's name to a causal language model of 97 tokens with random weights."""
    transformers = pytest.importorskip("transformers")

    def build(name):
        torch.manual_seed(0)
        builders = {
            "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**WIDE)),
            "gemma2": lambda: transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**WIDE, head_dim=8)),
            "cohere": lambda: transformers.CohereForCausalLM(transformers.CohereConfig(**WIDE, logit_scale=0.3)),
            "granite": lambda: transformers.GraniteForCausalLM(transformers.GraniteConfig(**WIDE, logits_scaling=4.0)),
            "gpt2": lambda: transformers.GPT2LMHeadModel(
                transformers.GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
            ),
            "neox": lambda: transformers.GPTNeoXForCausalLM(
                transformers.GPTNeoXConfig(**COMMON, intermediate_size=64, bos_token_id=1, eos_token_id=2)
            ),
            "opt": lambda: transformers.OPTForCausalLM(
                transformers.OPTConfig(**COMMON, ffn_dim=64, word_embed_proj_dim=32, bos_token_id=1, eos_token_id=2)
            ),
            "phi": lambda: transformers.PhiForCausalLM(
                transformers.PhiConfig(**COMMON, intermediate_size=64, bos_token_id=1, eos_token_id=2)
            ),
            "mixtral": lambda: transformers.MixtralForCausalLM(transformers.MixtralConfig(**WIDE, num_local_experts=4)),
            "lfm2": lambda: transformers.Lfm2ForCausalLM(
                transformers.Lfm2Config(**WIDE, layer_types=["conv", "full_attention"])
            ),
            "bloom": lambda: transformers.BloomForCausalLM(
                transformers.BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4)
            ),
        }
        return builders[name]().eval()

    return build
