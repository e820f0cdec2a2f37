"""What the zoo's networks share: timm's convention of a body and a classifier, and cutting images into patches."""

import torch.nn.functional as F
from torch import Tensor, nn


class Body(nn.Module):
    """A classifier in timm's convention: `forward_features`, then `forward_head`, which ends in `get_classifier()`.

    Args:
        width: length D of the pooled features.
        num_classes: outputs of the classifier; 0 for none.
    """

    fixed_size = True  # whether the weights fit images of one size only

    def __init__(self, *, width: int, num_classes: int) -> None:
        super().__init__()
        self.width = width
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] to the feature map [B, D, h, w] or the tokens [B, N, D] before pooling."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """What `forward_features` gave to logits [B, C], or with `pre_logits` to the mean over places [B, D]."""
        x = x.mean((2, 3) if x.dim() == 4 else 1)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] to logits [B, C]."""
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """The last linear layer, or an identity."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Put a newly drawn classifier in place of the one there; with 0 classes none."""
        self.head: nn.Module = nn.Linear(self.width, num_classes) if num_classes else nn.Identity()


class Patches(nn.Module):
    """Images [B, C, H, W] to one token [B, N, D] a patch; sides that `size` does not divide are padded with zeros.

    Attributes:
        grid: height and width in patches of images of `image_size`.

    Args:
        channels: channels of the images.
        image_size: height and width of the images.
        size: side of a patch.
        width: length D of a token.
    """

    def __init__(self, *, channels: int, image_size: tuple[int, int], size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.grid = self.grid_of(*image_size)
        self.number = self.grid[0] * self.grid[1]
        self.project = nn.Conv2d(channels, width, size, stride=size)

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in patches of images of some size."""
        return -(-height // self.size), -(-width // self.size)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] to tokens [B, N, D]."""
        bottom, right = (-side % self.size for side in x.shape[2:])
        return self.project(F.pad(x, (0, right, 0, bottom))).flatten(2).transpose(1, 2)
