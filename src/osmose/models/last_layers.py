"""A transformer whose classifier reads what its last layers give, side by side (DINO, Caron et al. 2021, linear evaluation)."""

from typing import Any

import torch
from torch import Tensor, nn

from osmose.errors import UserError, check
from osmose.models.chain import layers


class LastLayers(nn.Module):
    """A body in timm's convention whose features are those of its last layers, joined.

    Each layer's tokens are normalised and pooled as the body does with those of the last one. Of ViTs that pool by a
    class token these are the class tokens of the last layers.

    Args:
        body: a transformer of the zoo or of timm, whose last `norm` comes behind its layers; its classifier is taken away.
        last_layers: how many layers are read, n.
        patch_mean: whether the mean of the last layer's patches is joined to them, as DINO does for ViT-Base beside n = 1.
        num_classes: outputs of the classifier; 0 for none.

    Raises:
        UserError: when the body is no such transformer or has fewer layers.
    """

    def __init__(self, body: Any, *, last_layers: int = 1, patch_mean: bool = False, num_classes: int) -> None:
        super().__init__()
        found = layers(body)
        if not found or not all(hasattr(body, name) for name in ("forward_features", "forward_head", "norm")):
            raise UserError(
                f"last_layers: {type(body).__name__} is no transformer of the zoo or timm whose layers are known: leave it out"
            )
        check(last_layers in range(1, len(found) + 1), "last_layers", last_layers, f"1 to {len(found)}, its layers")
        check(isinstance(patch_mean, bool), "patch_mean", patch_mean, "true or false")
        self.last_layers, self.patch_mean = last_layers, patch_mean
        body.reset_classifier(0)
        self.body = body
        self.num_prefix_tokens: int = getattr(body, "num_prefix_tokens", 0)
        width = body.width if hasattr(body, "width") else body.num_features
        self.width: int = width * (last_layers + patch_mean)
        self.reset_classifier(num_classes)
        self._states: list[Tensor] = []
        for path in found[-last_layers:-1]:
            body.get_submodule(path).register_forward_hook(self._hear)

    def forward_features(self, x: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] to the tokens of the last layers, joined: [B, N, n D].

        Raises:
            UserError: when the layers give something else than tokens [B, N, D].
        """
        self._states = []
        last = self.body.forward_features(x)
        states, self._states = self._states, []
        if last.dim() != 3 or any(state.shape != last.shape for state in states):
            shapes = ", ".join(str(list(state.shape[1:])) for state in (*states, last))
            raise UserError(f"last_layers: the layers give {shapes}, not tokens of one width: leave it out")
        return torch.cat([*(self.body.norm(state) for state in states), last], -1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """What `forward_features` gave to logits [B, C], or with `pre_logits` to the joined features [B, width]."""
        tokens = x.chunk(self.last_layers, -1)
        pooled = [self.body.forward_head(one, pre_logits=True) for one in tokens]
        if self.patch_mean:
            pooled.append(tokens[-1][:, self.num_prefix_tokens :].mean(1))
        features = torch.cat(pooled, -1)
        return features if pre_logits else self.head(features)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] to logits [B, C]."""
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """The last linear layer, or an identity."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Put a newly drawn classifier in place of the one there; with 0 classes none."""
        self.head: nn.Module = nn.Linear(self.width, num_classes) if num_classes else nn.Identity()

    def _hear(self, layer: nn.Module, inputs: Any, given: Tensor) -> None:
        self._states.append(given)
