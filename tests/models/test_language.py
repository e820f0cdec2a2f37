"""Language models of several families: documents apart, heads that are theirs, cutting, files, and what is refused."""

import json

import pytest
import torch
from torch import nn

transformers = pytest.importorskip("transformers")

from osmose import torchvision_ops  # noqa: E402

torchvision_ops.install()

from tokenizers import Tokenizer  # noqa: E402

from osmose.errors import UserError  # noqa: E402
from osmose.models.language import LanguageModel  # noqa: E402
from osmose.models.load_language import load_language  # noqa: E402


def few(bytewise):
    """The tokenizer with only its first 97 tokens."""
    made = json.loads(bytewise.backend_tokenizer.to_str())
    made["model"]["vocab"] = {token: number for token, number in made["model"]["vocab"].items() if number < 97}
    made["added_tokens"] = []
    return transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(made)), eos_token="!")


@pytest.mark.parametrize("name", ["llama", "gemma2", "cohere", "granite", "gpt2", "neox", "opt", "phi", "mixtral"])
@torch.no_grad()
def test_documents_in_blocks_are_those_documents_alone(name, bytewise, family):
    """Three documents in two blocks; the logits of each are what transformers gives for it alone."""
    body = family(name)
    model = LanguageModel(body, few(bytewise), name="test")
    tokens = torch.randint(3, 97, (2, 12), generator=torch.Generator().manual_seed(1))
    documents = torch.tensor([[0] * 5 + [1] * 7, [0] * 12])
    hidden = model(torch.stack([tokens, documents], dim=1)).hidden
    logits = model.head.logits(hidden.flatten(0, 1), 97, torch.empty(24, 97)).view(2, 12, 97)
    for row, start, end in ((0, 0, 5), (0, 5, 12), (1, 0, 12)):
        alone = body(tokens[row, start:end][None]).logits.squeeze(0)
        torch.testing.assert_close(logits[row, start:end], alone, rtol=1e-4, atol=1e-4)


def test_a_head_that_is_no_matrix_product_is_refused(bytewise, family):
    body = family("llama")
    forward = body.forward
    body.forward = lambda *given, **named: _squared(forward(*given, **named))
    with pytest.raises(UserError, match="are not its hidden states times the matrix of its output embeddings"):
        LanguageModel(body, few(bytewise), name="test")


def _squared(said):
    said.logits = said.logits.square()
    return said


def test_a_model_that_mixes_documents_is_refused(bytewise, family):
    body = family("llama")
    forward = body.base_model.forward

    def mixed(input_ids, position_ids=None, attention_mask=None, **named):
        return forward(input_ids=input_ids, **named)

    body.base_model.forward = mixed
    with pytest.raises(UserError, match="cannot keep documents in one block apart"):
        LanguageModel(body, few(bytewise), name="test")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["lfm2", "bloom"])
def test_models_that_mix_documents_a_little_are_refused(name, dtype, bytewise, family):
    """Convolutions over the end of a document, or none of the masks: with few weights by less than rounding to bfloat16."""
    with pytest.raises(UserError, match="cannot keep documents in one block apart"):
        LanguageModel(family(name).to(dtype), few(bytewise), name="test")


def test_saved_and_loaded(llama, tmp_path):
    model = load_language(f"hf:{llama()}")
    model.save(tmp_path / "model", epoch=3)
    again = load_language(f"hf:{tmp_path / 'model'}")
    assert again.digest() == model.digest()
    about = json.loads((tmp_path / "model" / "osmose.json").read_text())
    assert (about["epoch"], about["digest"], about["parameters"]) == (3, model.digest(), model.size)
    with torch.no_grad():
        again.body.get_input_embeddings().weight.add_(1)
    assert again.digest() != model.digest()
    again.save(tmp_path / "model")
    model.restore(tmp_path / "model")
    assert model.digest() == again.digest()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_some_layers_of_a_trained_model(llama):
    whole, cut = load_language(f"hf:{llama()}"), load_language(f"hf:{llama()},layers=2")
    assert cut.body.config.num_hidden_layers == 2
    for place, kept in enumerate((0, 3)):
        for ours, theirs in zip(
            cut.body.model.layers[place].parameters(), whole.body.model.layers[kept].parameters(), strict=True
        ):
            assert torch.equal(ours, theirs)
    assert torch.equal(cut.head.weight, whole.head.weight)
    x = torch.zeros(1, 2, 5, dtype=torch.long)
    assert cut(x).hidden.shape == (1, 5, 16)
    assert cut.body.generate(torch.tensor([[5, 6]]), max_new_tokens=3, do_sample=False).shape[1] <= 5  # with its cache


def test_new_weights_are_a_function_of_the_seed(llama):
    name = f"fresh:hf:{llama()},layers=3,hidden_size=8"
    first, same, other = (load_language(name, seed=seed) for seed in (0, 0, 1))
    assert first.body.config.num_hidden_layers == 3
    assert first.head.weight.shape == (258, 8)
    assert first.digest() == same.digest() != other.digest()


def test_a_module_with_its_tokenizer(bytewise, family):
    body = family("gpt2")
    with pytest.raises(UserError, match="GPT2LMHeadModel comes without a tokenizer"):
        load_language(body)
    assert load_language(body, tokenizer=few(bytewise)).name == "module:GPT2LMHeadModel"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smollm", "unknown language model 'smollm': write hf:FOLDER"),
        ("{llama}", "is a path: write hf:{llama}"),
        ("hf:{llama},layers=9", r"key 'layers of 'hf:.*' is 9: set it to a number from 1 to 4"),
        ("hf:{llama},head_dim=2", "option 'head_dim' of .* does not fit trained weights.*: write fresh:hf:"),
        ("fresh:hf:{llama},layer=2", "unknown option of .*: 'layer': did you mean 'layers'"),
        ("fresh:hf:{llama},layers", "'layers' is no option: write KEY=VALUE"),
        ("hf:{empty}", "the folder has neither config.json nor a file of GGUF"),
        ("hf:{empty}/none", "there is no folder .*none: check the path"),
        ("hf:{empty}/a.gguf", "there is no file .*a.gguf: check the path"),
        ("file:{empty}", "holds no language model: give the folder of a finished run of method language"),
        ("hf:{broken}", "cannot load 'hf:.*broken'"),
    ],
)
def test_mistakes(name, message, llama, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "llama"')
    places = {"llama": llama(), "empty": tmp_path / "empty", "broken": tmp_path / "broken"}
    with pytest.raises(UserError, match=message.format(**places)) as error:
        load_language(name.format(**places))
    assert "\n" not in str(error.value)


def test_what_transformers_does_not_save_is_refused_before_it_is_trained(llama):
    model = load_language(f"fresh:hf:{llama()}")
    model.check_saving()
    model.body.config.num_attention_heads = 3
    with pytest.raises(
        UserError, match=r"transformers does not save '.*' \(.* is not a multiple .*\): change its configuration"
    ):
        model.check_saving()


def test_weights_that_are_not_finite(llama, tmp_path):
    model = load_language(f"hf:{llama()}")
    model.save(tmp_path / "bad")
    with torch.no_grad():
        nn.init.constant_(model.body.model.norm.weight, float("nan"))
        model.body.save_pretrained(tmp_path / "bad")
    with pytest.raises(UserError, match="holds NaN or infinity"):
        load_language(f"hf:{tmp_path / 'bad'}")


def test_bits_other_than_four_are_refused(llama):
    with pytest.raises(UserError, match=r"key 'bits of 'hf:.*' is 8: set it to 4"):
        load_language(f"hf:{llama()},bits=8")


def test_types_that_nothing_is_trained_in_are_refused(llama):
    with pytest.raises(UserError, match=r"key 'dtype of 'hf:.*' is 'int8': set it to float32 or bfloat16 or float16"):
        load_language(f"hf:{llama()},dtype=int8")


def test_layers_of_narrow_weights(llama):
    model = load_language(f"hf:{llama()},layers=1,dtype=bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", ["zoo:llama-mini", "fresh:zoo:llama-maxi"])
def test_the_packages_models(name):
    with pytest.raises(
        UserError, match="has no weights here: write fresh:zoo:llama-mini|did you mean 'zoo:llama-mini'"
    ):
        load_language(name)
    assert load_language("fresh:zoo:llama-mini,layers=1").vocabulary == 1024


def test_what_saving_writes_is_not_in_the_digest(tmp_path, bytewise, family):
    """A configuration without `architectures`, as nobody has saved it yet."""
    model = LanguageModel(family("llama"), few(bytewise), name="test")
    before = model.digest()
    model.save(tmp_path / "model")
    assert model.digest() == before == load_language(f"hf:{tmp_path / 'model'}").digest()


def test_layers_of_several_kinds(tmp_path, bytewise):
    """Lists with an entry a layer are cut with the layers; what cannot be told apart then is refused."""
    settings = {
        "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_hidden_layers": 6, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    smol = transformers.SmolLM3Config(**settings, no_rope_layers=[1, 1, 0, 1, 0, 0])
    LanguageModel(transformers.SmolLM3ForCausalLM(smol).eval(), few(bytewise), name="test").save(tmp_path / "smol")
    cut = load_language(f"hf:{tmp_path / 'smol'},layers=3")
    assert cut.body.config.no_rope_layers == [1, 0, 0]
    cut.save(tmp_path / "cut")
    x = torch.zeros(1, 2, 9, dtype=torch.long)
    x[:, 0] = torch.arange(9)
    torch.testing.assert_close(load_language(f"hf:{tmp_path / 'cut'}")(x).hidden, cut(x).hidden)
    mixed = transformers.Qwen2MoeConfig(
        **settings, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=16, shared_expert_intermediate_size=16,
        mlp_only_layers=[5],
    )  # fmt: skip
    LanguageModel(transformers.Qwen2MoeForCausalLM(mixed).eval(), few(bytewise), name="test").save(tmp_path / "moe")
    with pytest.raises(UserError, match="has layers of several kinds, which its configuration cannot tell apart"):
        load_language(f"hf:{tmp_path / 'moe'},layers=3")


def test_more_tokens_than_embeddings_are_refused(bytewise, family):
    with pytest.raises(UserError, match="'test' has 97 embeddings and its tokenizer 258 tokens: resize them"):
        LanguageModel(family("llama"), bytewise, name="test")


def test_leftovers_and_damaged_weights(llama, tmp_path):
    model = load_language(f"hf:{llama()}")
    model.save(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="truncated or not a safetensors file"):
        model.restore(tmp_path / "model")
    with pytest.raises(UserError, match="cannot load"):
        load_language(f"hf:{tmp_path / 'model'}")
    weights.unlink()
    with pytest.raises(UserError, match="does not hold the weights"):
        model.restore(tmp_path / "model")


@pytest.mark.parametrize("options", ["hidden_size=abc", "layers=x", "num_attention_heads=3"])
def test_options_that_do_not_fit_are_one_line(llama, options):
    with pytest.raises(UserError, match="cannot load") as error:
        load_language(f"fresh:hf:{llama()},{options}")
    assert "\n" not in str(error.value)
