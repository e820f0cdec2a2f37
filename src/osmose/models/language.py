"""Causal language models of transformers, taken apart into body and head."""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from osmose.errors import UserError, missing_extra
from osmose.files import cannot_write, whole_folder
from osmose.losses.heads import Head
from osmose.models.model import Model
from osmose.weights import read_weights

ABOUT = "osmose.json"
"""What stands beside the weights in a model's folder."""
_APART = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""How far hidden states may be from those of each document alone, relative to their size, by the type of the weights."""


@dataclass
class TokenStates:
    """What a language model says of blocks of tokens, before its head.

    Attributes:
        hidden: [B, L, width], the states that the head reads.
    """

    hidden: Tensor


class LanguageModel(Model):
    """A causal language model with its tokenizer.

    Tokens and the documents they belong to come as x, int64 [B, 2, L]: x[:, 0] are tokens, x[:, 1] numbers that are the same
    for all tokens of a document, which stand side by side. A document does not see another one.

    Args:
        body: of transformers, with hidden states, head and logits that are hidden states times a matrix.
        tokenizer: of transformers.
        name: how the user calls it, for example "hf:DIR".

    Raises:
        UserError: when its weights are not finite, its logits are not those of a `Head`, or it cannot keep documents apart.
    """

    suffix = ""

    def __init__(self, body: nn.Module, tokenizer: Any, *, name: str) -> None:
        super().__init__(body, name=name, architecture=None)
        self.tokenizer = tokenizer
        self._masked = False
        self._stays: frozenset[str] = frozenset()
        if not getattr(tokenizer, "is_fast", False):
            raise UserError(
                f"'{name}' has a tokenizer that does not tell where its tokens stand: give one of the fast kind"
            )
        if max(tokenizer.get_vocab().values()) >= self.vocabulary:
            raise UserError(
                f"'{name}' has {self.vocabulary} embeddings and its tokenizer {len(tokenizer)} tokens: "
                "resize them, model.resize_token_embeddings(len(tokenizer))"
            )
        for key, tensor in body.state_dict().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise UserError(
                    f"'{name}' holds NaN or infinity in '{key}': its training diverged; give an earlier one"
                )
        self._check()

    @property
    def head(self) -> Head:
        """What turns its hidden states into logits; its weights are the model's own parameters."""
        layer, config = self.body.get_output_embeddings(), self.body.config
        scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
        return Head(layer.weight, getattr(layer, "bias", None), scale, getattr(config, "final_logit_softcapping", None))

    @property
    def vocabulary(self) -> int:
        """How many tokens it gives logits for, padding among them."""
        return len(self.body.get_output_embeddings().weight)

    @property
    def layers_to_shard(self) -> list[nn.Module]:
        """Its layers, each of which is spread over processes together."""
        return list(layers_of(self.body, self.name)[1])

    @property
    def longest(self) -> int | None:
        """The most tokens it takes at a time; None where it does not say.

        A model whose documents are kept apart by a mask takes no more than its layers look back.
        """
        config = self.body.config
        sliding = self._masked and getattr(config, "use_sliding_window", True)
        limits = [
            getattr(config, "max_position_embeddings", None),
            getattr(config, "sliding_window", None) if sliding else None,
        ]
        return min((limit for limit in limits if limit), default=None)

    @property
    def size(self) -> int:
        """How many parameters it has; tied ones count once, and those of 4 bits as what they stand for."""
        return int(self.body.num_parameters())

    def check_length(self, length: int) -> None:
        """Raise `UserError` where blocks of so many tokens are longer than it takes."""
        if self.longest is not None and length > self.longest:
            raise UserError(f"data.length is {length} and {self.name} takes {self.longest} tokens: lower it")

    def check_saving(self) -> None:
        """Raise `UserError` where transformers would refuse to save it, after it was trained."""
        try:
            with tempfile.TemporaryDirectory() as folder:
                self.body.config.save_pretrained(folder)
        except Exception as error:  # of many kinds
            said = " ".join(str(error.__cause__ or error).split())
            raise UserError(f"transformers does not save '{self.name}' ({said}): change its configuration") from error

    def forward(self, x: Tensor) -> TokenStates:
        """Hidden states of tokens and documents, int64 [B, 2, L]."""
        return TokenStates(self._states(x, self._masked))

    def _states(self, x: Tensor, masked: bool) -> Tensor:
        """With documents told apart by a mask, or by positions that begin anew."""
        tokens, documents = x.unbind(1)
        places = torch.arange(tokens.shape[1], device=x.device)
        begins = torch.ones_like(documents, dtype=torch.bool)
        begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
        positions = places - (places * begins).cummax(1).values
        mask = _mask(documents, self.body.dtype) if masked else None
        hidden: Tensor = self.body.base_model(
            input_ids=tokens, position_ids=positions, attention_mask=mask, use_cache=False, return_dict=True
        ).last_hidden_state
        return hidden

    def answer(self, x: Tensor) -> Tensor:
        """The logits [B, vocabulary] of what comes after the last token."""
        hidden = self(x).hidden[:, -1].float()
        return self.head.logits(hidden, self.vocabulary, hidden.new_empty(len(x), self.vocabulary))

    def facts(self) -> dict[str, Any]:
        """The configuration, without what does not change its answers, and the tokenizer."""
        written = ("_", "dtype", "architectures", "transformers_version")  # when it is saved, whatever it answers
        config = {key: value for key, value in self.body.config.to_dict().items() if not key.startswith(written)}
        return {"config": config, "tokenizer": self.tokens}

    def about(self) -> dict[str, Any]:
        """What stands beside the weights in its folder; each value is JSON."""
        return {"name": self.name, "digest": self.digest(), "parameters": self.size}

    @cached_property
    def tokens(self) -> str:
        """SHA-256 of which token has which number."""
        return hashlib.sha256(json.dumps(sorted(self.tokenizer.get_vocab().items())).encode()).hexdigest()

    def save(self, path: str | Path, **metadata: Any) -> None:
        """Write a folder that transformers reads: weights as safetensors, configuration and tokenizer; whole or not at all.

        Args:
            path: the folder; replaced where it is there.
            metadata: further values to keep in it, each one JSON.

        Raises:
            UserError: when it cannot be written.
        """
        path = Path(path)
        try:
            with whole_folder(path) as part:
                with without_bars():
                    self.body.save_pretrained(part)
                    self.tokenizer.save_pretrained(part)
                (part / ABOUT).write_text(json.dumps(metadata | self.about(), indent=1))
        except OSError as error:
            raise cannot_write(path, error) from error

    def adapt(self, rank: int, alpha: int) -> None:
        """Freeze all weights and give every linear layer but the head an update of low rank that trains (arXiv 2106.09685).

        Updates are in float32, also of narrow weights. From then on, until it is settled, they alone are its state: checkpoints
        hold no weights that never change.

        Args:
            rank: of the updates.
            alpha: the updates are scaled by alpha / rank.

        Raises:
            UserError: when the extra 'language' is missing.
        """
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ModuleNotFoundError as error:
            raise missing_extra("updates of low rank need", "language") from error
        settings = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
        inject_adapter_in_model(settings, self.body)
        for parameter in self.body.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        self._stays = frozenset(self.state_dict()) - trained
        self.register_state_dict_post_hook(_leave_out_what_stays)
        self.register_load_state_dict_pre_hook(_fill_in_what_stays)

    def settle(self) -> None:
        """Updates of low rank are added to the weights that they are of, all of which are wide then."""
        if hasattr(self.body, "peft_config"):
            self.body.float()
        for path, layer in list(self.body.named_modules()):
            if hasattr(layer, "get_base_layer"):
                layer.merge()
                parent, _, last = path.rpartition(".")
                setattr(self.body.get_submodule(parent), last, layer.get_base_layer())
        if hasattr(self.body, "peft_config"):
            del self.body.peft_config
            self.body._hf_peft_config_loaded = False
        self._stays = frozenset()
        self.requires_grad_(True)

    def restore(self, path: Path) -> None:
        """Take the weights of the same body that `save` wrote to `path`.

        Raises:
            UserError: when they cannot be read.
        """
        weights: dict[str, Tensor] = {}
        for file in sorted(path.glob("*.safetensors")):
            weights |= read_weights(file)[0]
        missing, unknown = self.body.load_state_dict(weights, strict=False)
        tied = set(getattr(self.body, "all_tied_weights_keys", None) or ())
        if unknown or set(missing) - tied:
            raise UserError(f"{path} does not hold the weights of {self.name}: start anew with --fresh")

    @torch.no_grad()
    def _check(self) -> None:
        """Try on a few tokens that the head is the body's, and that documents are kept apart."""
        was_training, near = self.body.training, _APART[self.body.dtype]
        self.eval()
        tokens = torch.arange(10, device=self.device) % self.vocabulary
        alone = [self._alone(tokens[:4]), self._alone(tokens[4:])]
        logits = self.body(tokens[None], use_cache=False).logits.float().squeeze(0)
        hidden = self._alone(tokens).float()
        own = self.head.logits(hidden, self.vocabulary, hidden.new_empty(len(hidden), self.vocabulary))
        if logits.shape != own.shape or not torch.allclose(
            logits, own, rtol=near, atol=near * float(logits.abs().max())
        ):
            raise UserError(
                f"the logits of '{self.name}' ({type(self.body).__name__}) are not its hidden states times the matrix of its "
                "output embeddings: its head cannot be taught without holding all logits; give another model"
            )
        x = torch.stack([tokens, (torch.arange(10, device=self.device) >= 4).long()])[None]
        for masked in (False, True):
            try:
                apart = self._states(x, masked).squeeze(0)
                if (apart - torch.cat(alone)).abs().max() <= near * apart.abs().max() and not self._leaks(x, masked):
                    self._masked = masked
                    break
            except (RuntimeError, ValueError, TypeError):  # it takes no positions, or no mask
                continue
        else:
            raise UserError(
                f"'{self.name}' ({type(self.body).__name__}) cannot keep documents in one block apart: give a model whose "
                "attention takes a mask"
            )
        self.train(was_training)

    @torch.enable_grad()
    def _leaks(self, x: Tensor, masked: bool) -> bool:
        """Whether the second document of a block depends at all on the first: its gradient in the first's embeddings is not 0."""
        embeddings: list[Tensor] = []

        def keep(layer: nn.Module, given: Any, made: Tensor) -> Tensor:
            embeddings.append(made.detach().requires_grad_())
            return embeddings[-1]

        hook = self.body.get_input_embeddings().register_forward_hook(keep)
        try:
            hidden = self._states(x, masked)
        finally:
            hook.remove()
        second = hidden[:, x[0, 1] > 0].float()
        weights = torch.linspace(-1, 1, second.numel(), device=second.device).cos().view_as(second)
        (gradient,) = torch.autograd.grad((weights * second).sum(), embeddings[0])
        return bool(gradient[:, x[0, 1] == 0].count_nonzero())

    def _alone(self, tokens: Tensor) -> Tensor:
        hidden: Tensor = self.body.base_model(
            input_ids=tokens[None], use_cache=False, return_dict=True
        ).last_hidden_state
        return hidden.squeeze(0)


def layers_of(body: Any, name: str) -> tuple[str, nn.ModuleList]:
    """A model's layers and their path: the one list of modules that is as long as its configuration says.

    Raises:
        UserError: when there is not just one such list.
    """
    lists = ((path, one) for path, one in body.named_modules() if isinstance(one, nn.ModuleList))
    found = [(path, one) for path, one in lists if len(one) == body.config.num_hidden_layers]
    if len(found) != 1:
        raise UserError(f"'{name}' ({type(body).__name__}) does not keep its layers in one list: use fresh:{name}")
    return found[0]


@contextmanager
def without_bars() -> Iterator[None]:
    """Inside the block transformers shows no progress bars."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _mask(documents: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, 1, L, L], to be added to attention scores: a token sees those before it in its document."""
    same = (documents[:, :, None] == documents[:, None, :]).tril()
    return torch.zeros(same.shape, dtype=dtype, device=documents.device).masked_fill_(~same, torch.finfo(dtype).min)[
        :, None
    ]


def _leave_out_what_stays(model: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Of an adapted model the updates alone are state."""
    assert isinstance(model, LanguageModel)
    for name in model._stays:
        del state[prefix + name]


def _fill_in_what_stays(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """What an adapted model is given as its state lacks the weights that stay as they are."""
    assert isinstance(model, LanguageModel)
    own = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    state |= {prefix + name: own[name] for name in model._stays}
