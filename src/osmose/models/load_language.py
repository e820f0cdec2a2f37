"""Language models by name: `hf:FOLDER-or-NAME`, `hf:FILE.gguf`, `file:RUN`, and `fresh:` before one for new weights; of the
package `fresh:zoo:llama-mini`."""

import copy
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from torch import nn

from osmose import torchvision_ops
from osmose.errors import UserError, check, missing_extra, unknown
from osmose.models.language import LanguageModel, layers_of, without_bars
from osmose.models.narrow import WIDTHS, narrow
from osmose.models.options import options
from osmose.random import stream as random_stream

_USAGE = (
    "hf:FOLDER, hf:NAME of the hub, hf:FILE.gguf or file:RUN, each with options as layers=6, and fresh: before for new weights; "
    "or fresh:zoo:llama-mini"
)
PACKAGED = {"llama-mini": Path(__file__).parent / "llama_mini"}
"""Folders of the package with a configuration and a tokenizer, by name."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_language(
    name: str | nn.Module, *, tokenizer: Any = None, seed: int = 0, stream: str = "student/init"
) -> LanguageModel:
    """Give a language model by name, or wrap a module of transformers.

    `hf:FOLDER,layers=6` keeps six layers of a trained model, evenly spread from the first to the last, with its embeddings and
    head; `hf:FOLDER,hidden_size=192`, or intermediate_size or num_attention_heads, makes it narrower (see `narrow`). For
    teachers that do not fit otherwise, `hf:FOLDER,dtype=bfloat16` (or float16) keeps weights as narrow as they may have been
    trained, and `hf:FOLDER,bits=4` has linear layers of 4 bits (nf4, extra 'eight-bit').
    `fresh:hf:FOLDER,layers=6,hidden_size=192` has new weights in the shape of the configuration in the folder with these
    changes, and its tokenizer. Other options are keys of that configuration.

    Args:
        name: a name as above, a `LanguageModel` (returned as it is), or a causal language model of transformers.
        tokenizer: a module's tokenizer.
        seed: seed of new weights.
        stream: name of the random stream that they are drawn from.

    Raises:
        UserError: for an unknown name, files that cannot be read, weights that are not finite, or a model that cannot be taught
            (see `LanguageModel`).
    """
    if isinstance(name, LanguageModel):
        return name
    if isinstance(name, nn.Module):
        if tokenizer is None:
            tokenizer = getattr(name, "tokenizer", None)
        if tokenizer is None:
            raise UserError(
                f"{type(name).__name__} comes without a tokenizer: give it as model.tokenizer, or give hf:FOLDER"
            )
        return LanguageModel(name.float(), tokenizer, name=f"module:{type(name).__name__}")
    fresh = name.startswith("fresh:")
    place, changes = find_language(name)
    with language_extra(), _readable(name):
        config, tokenizer = _config(place, name), _tokenizer(place)
        if fresh:
            with random_stream(seed, stream):
                body = _new(config, changes, name)
        else:
            dtype, bits = changes.pop("dtype", "float32"), changes.pop("bits", None)
            check(dtype in _DTYPES, f"dtype of '{name}'", dtype, " or ".join(_DTYPES))
            if bits is not None and not changes.keys().isdisjoint(WIDTHS):
                raise UserError(f"'{name}': weights of 4 bits cannot be made narrower: leave bits out")
            body = _cut(_trained(place, _DTYPES[dtype], _quantised(bits, name)), changes, name)
        return LanguageModel(body, tokenizer, name=name)


def find_language(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Where a language model's files are, as arguments of `from_pretrained`, and the options behind its name.

    Raises:
        UserError: for an unknown name, and files that are not there; names of the hub are not looked up.
    """
    source, _, rest = name.removeprefix("fresh:").partition(":")
    key, comma, text = (rest, "", "") if Path(rest).exists() else rest.partition(",")
    if source not in ("hf", "file", "zoo") or not key:
        if Path(name).exists():
            raise UserError(f"language model '{name}' is a path: write hf:{name}")
        raise UserError(f"unknown language model '{name}': write {_USAGE}")
    return _place(name, key, source), options(name, text) if comma else {}


@contextmanager
def language_extra() -> Iterator[None]:
    """Imports inside the block belong to the extra 'language': a missing one is a UserError."""
    torchvision_ops.install()
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing_extra("language models need", "language") from error


def _place(name: str, key: str, source: str) -> dict[str, Any]:
    """The arguments of `from_pretrained` for what a name means: a folder, a file of GGUF, or a name of the hub."""
    path = Path(key).expanduser()
    if source == "zoo":
        if key not in PACKAGED:
            raise unknown("language model", f"zoo:{key}", [f"zoo:{one}" for one in PACKAGED])
        if not name.startswith("fresh:"):
            raise UserError(f"'{name}' has no weights here: write fresh:{name}")
        return {"pretrained_model_name_or_path": str(PACKAGED[key])}
    if source == "file":
        path = path / "student" if path.is_dir() and not (path / "config.json").exists() else path
        if not (path / "config.json").exists():
            raise UserError(
                f"'{name}': {path} holds no language model: give the folder of a finished run of method language"
            )
        return {"pretrained_model_name_or_path": str(path)}
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UserError(f"'{name}': there is no file {path}: check the path")
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    if path.is_dir() and not (path / "config.json").exists():
        files = sorted(path.glob("*.gguf"))
        if len(files) == 1:
            return {"pretrained_model_name_or_path": str(path), "gguf_file": files[0].name}
        what = "several files of GGUF" if files else "neither config.json nor a file of GGUF"
        raise UserError(f"'{name}': the folder has {what}: give a folder of transformers, or the file")
    if not path.is_dir() and (path.is_absolute() or key.startswith(".") or key.count("/") > 1):
        raise UserError(f"'{name}': there is no folder {path}: check the path")
    return {"pretrained_model_name_or_path": str(path) if path.is_dir() else key}


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """What transformers says of files and settings that it cannot use, in one line."""
    try:
        yield
    except (UserError, ModuleNotFoundError):
        raise
    except ImportError as error:
        raise UserError(
            f"'{name}' needs a package that is missing ({_line(error)}): pip install 'osmose[language]'"
        ) from None
    except Exception as error:  # of many kinds, its own among them
        raise UserError(f"cannot load '{name}': {_line(error) or type(error).__name__}") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _config(place: Mapping[str, Any], name: str) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(**place)
    if hasattr(config, "quantization_config") and "gguf_file" in place:
        del config.quantization_config  # the weights are widened when they are read
    return config


def _tokenizer(place: Mapping[str, Any]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(**place)


def _quantised(bits: Any, name: str) -> dict[str, Any]:
    """The arguments of `from_pretrained` for weights of 4 bits."""
    if bits is None:
        return {}
    check(bits == 4, f"bits of '{name}'", bits, "4")
    try:
        import bitsandbytes  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_extra("weights of 4 bits need", "eight-bit") from error
    from transformers import BitsAndBytesConfig

    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    return {"quantization_config": four}


def _trained(place: Mapping[str, Any], dtype: torch.dtype, quantised: Mapping[str, Any]) -> nn.Module:
    from transformers import AutoModelForCausalLM

    shown = redirect_stderr(io.StringIO()) if "gguf_file" in place else nullcontext()  # a bar of its own
    with without_bars(), shown:
        body: Any = AutoModelForCausalLM.from_pretrained(**place, **quantised, dtype=dtype)
    if hasattr(body.config, "quantization_config") and "gguf_file" in place:
        del body.config.quantization_config
    return body.eval()


def _new(config: Any, changes: Mapping[str, Any], name: str) -> nn.Module:
    from transformers import AutoModelForCausalLM

    _change(config, changes, name)
    body: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return body.eval()


def _cut(body: Any, changes: Mapping[str, Any], name: str) -> nn.Module:
    """The model with fewer layers, narrower ones, or both."""
    for key in changes:
        if key not in ("layers", *WIDTHS):
            raise UserError(
                f"option '{key}' of '{name}' does not fit trained weights, which can be cut in layers, {', '.join(WIDTHS)}: "
                f"write fresh:{name}"
            )
    if "layers" in changes:
        body = _with_layers(body, changes["layers"], name)
    for key in WIDTHS:
        if key in changes:
            body = narrow(body, key, changes[key], name)
    return body


def _with_layers(body: Any, wanted: Any, name: str) -> nn.Module:
    """The model with so many of its layers, evenly spread from the first to the last, as its configuration rebuilds it."""
    path, layers = layers_of(body, name)
    count = len(layers)
    fits = isinstance(wanted, int) and 1 <= wanted <= count
    check(fits, f"layers of '{name}'", wanted, f"a number from 1 to {count}")
    kept = [0] if wanted == 1 else [round(place * (count - 1) / (wanted - 1)) for place in range(wanted)]
    parent, _, last = path.rpartition(".")
    setattr(body.get_submodule(parent), last, nn.ModuleList(layers[place] for place in kept))
    for place, layer in enumerate(body.get_submodule(path)):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                vars(module)["layer_idx"] = place
    config = copy.deepcopy(body.config)
    config.num_hidden_layers = wanted
    for key, value in body.config.to_dict().items():
        if isinstance(value, list) and len(value) == count:  # one entry a layer
            setattr(config, key, [value[place] for place in kept])
    return _rebuilt(body, config, name)


def _rebuilt(body: Any, config: Any, name: str) -> nn.Module:
    """The body that a configuration gives, with a cut one's weights: what will be loaded from its folder.

    Raises:
        UserError: when it answers otherwise, because the configuration says more of its layers.
    """
    from transformers import AutoModelForCausalLM

    tokens = torch.arange(10)[None] % body.config.vocab_size
    try:
        made: Any = AutoModelForCausalLM.from_config(config, dtype=body.dtype).eval()
        made.load_state_dict(body.state_dict())
        with torch.no_grad():
            ours, theirs = (one(tokens, use_cache=False).logits for one in (made, body))
        same = torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))
    except (RuntimeError, ValueError, KeyError, IndexError, TypeError):
        same = False
    if not same:
        raise UserError(
            f"'{name}' ({type(body).__name__}) has layers of several kinds, which its configuration cannot tell apart once some "
            f"are gone: use fresh:{name}"
        )
    return made


def _change(config: Any, changes: Mapping[str, Any], name: str) -> None:
    for key, value in changes.items():
        real = "num_hidden_layers" if key == "layers" else key
        if not hasattr(config, real):
            raise unknown(f"option of '{name}':", key, ["layers", *config.to_dict()])
        setattr(config, real, value)
        if real == "num_hidden_layers" and getattr(config, "layer_types", None):
            config.layer_types = (config.layer_types * (1 + value // len(config.layer_types)))[:value]
        if (
            real in ("hidden_size", "num_attention_heads")
            and "head_dim" not in changes
            and getattr(config, "head_dim", None)
        ):
            config.head_dim = config.hidden_size // config.num_attention_heads
