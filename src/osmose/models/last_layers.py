"""A transformer whose classifier reads what its last layers give, side by side (DINO, Caron et al. 2021, linear evaluation)."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from osmose.errors import UserError, check
from osmose.models.chain import layers
from osmose.models.zoo.body import Body


class LastLayers(Body):
    """A body whose features are those of its last layers, joined.

    Each layer's tokens are normalised and pooled as the body does with those of the last one: of a ViT that pools by a class
    token these are the class tokens of the last layers, of others the means of their patches.

    Args:
        body: a transformer of the zoo or of timm, whose `norm` comes behind its layers; its classifier is taken away.
        last_layers: how many layers are read, n.
        patch_mean: whether the mean of the last layer's patches is joined to the class tokens, as DINO does for ViT-Base, n = 1.
        num_classes: outputs of the classifier; 0 for none.

    Raises:
        UserError: when the body's layers are not known or are fewer, or it has no class token to join patches to.
    """

    def __init__(self, body: Any, *, last_layers: int, patch_mean: bool = False, num_classes: int) -> None:
        found = layers(body)
        if not found or not all(hasattr(body, name) for name in ("forward_features", "forward_head", "norm")):
            raise UserError(
                f"{type(body).__name__} has no known layers in a row before a norm, as transformers of the zoo and timm have: "
                "leave last_layers out"
            )
        count = len(found)
        valid = type(last_layers) is int and 1 <= last_layers <= count
        check(valid, "last_layers", last_layers, f"a number from 1 to {count}, as many as it has layers")
        check(isinstance(patch_mean, bool), "patch_mean", patch_mean, "true or false")
        if patch_mean and getattr(body, "global_pool", None) != "token":
            raise UserError("patch_mean: its classifier reads no class token, but the patches already: leave it out")
        width = body.width if hasattr(body, "width") else body.num_features
        super().__init__(width=width * (last_layers + patch_mean), num_classes=num_classes)
        self.last_layers, self.patch_mean = last_layers, patch_mean
        self.before_last = found[-last_layers:-1]
        body.reset_classifier(0)
        self.body = body
        self.num_prefix_tokens: int = getattr(body, "num_prefix_tokens", 0)

    def forward_features(self, x: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] to the tokens of the last layers, joined: [B, N, n D].

        Raises:
            UserError: when the layers do not all give tokens [B, N, D].
        """
        states: list[Any] = []
        with ExitStack() as ears:
            for path in self.before_last:
                layer = self.body.get_submodule(path)
                ears.enter_context(layer.register_forward_hook(lambda layer, inputs, given: states.append(given)))
            last = self.body.forward_features(x)
        shapes = [list(state.shape) if isinstance(state, Tensor) else type(state).__name__ for state in (*states, last)]
        if len(shapes) != self.last_layers or any(shape != shapes[0] or len(shape) != 3 for shape in shapes):
            raise UserError(
                f"last_layers: the last layers of {type(self.body).__name__} give {', '.join(map(str, shapes))}, not tokens of "
                "one shape: leave it out"
            )
        return torch.cat([*(self.body.norm(state) for state in states), last], -1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """What `forward_features` gave to logits [B, C], or with `pre_logits` to the joined features [B, width]."""
        tokens = x.chunk(self.last_layers, -1)
        pooled = [self.body.forward_head(one, pre_logits=True) for one in tokens]
        if self.patch_mean:
            pooled.append(tokens[-1][:, self.num_prefix_tokens :].mean(1))
        features = torch.cat(pooled, -1)
        return features if pre_logits else self.head(features)
