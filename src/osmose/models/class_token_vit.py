"""A small vision transformer with a class token, whose attention may be wider than its tokens (after Nix et al. 2022)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ClassTokenViT(nn.Module):
    """Patches, a class token, normal position embeddings, pre-normalised layers; the classifier reads the class token.

    Args:
        image_size: height and width.
        channels: channels of the images.
        classes: outputs of the classifier.
        patch: side of a patch; it divides both sides of the image.
        width: length D of a token.
        depth: number of layers.
        heads: attention heads a layer.
        head_width: length of a head's queries, keys and values.
        hidden: width of each layer's MLP.
        dropout: share of values left out in training, of the embedding, the attention's output and the MLP.
        head_hidden: width of a hidden layer in the classifier; 0 for none.
    """

    def __init__(
        self, *, image_size: tuple[int, int], channels: int, classes: int, patch: int, width: int, depth: int,
        heads: int, head_width: int, hidden: int, dropout: float = 0.0, head_hidden: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        height, across = image_size
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, (height // patch) * (across // patch) + 1, width))
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(*(_Layer(width, heads, head_width, hidden, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        between = [nn.Linear(width, head_hidden), nn.GELU()] if head_hidden else []
        self.head = nn.Sequential(*between, nn.Linear(head_hidden or width, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes] of images [B, channels, H, W]."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], dim=1) + self.position
        logits: Tensor = self.head(self.norm(self.layers(self.dropout(tokens)))[:, 0])
        return logits


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, head_width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * heads * head_width, bias=False)
        self.out = nn.Sequential(nn.Linear(heads * head_width, width), nn.Dropout(dropout))
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(hidden, width), nn.Dropout(dropout),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        after: Tensor = x + self.mlp(x)
        return after
