"""A learned distribution over affine transformations of the image plane."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osmose.augmentors.augmentor import Augmentor
from osmose.errors import UserError, check


class Affine(Augmentor):
    """A spatial transformer whose 2x3 matrix is drawn anew for each image (arXiv 2305.14890, section 3).

    theta = identity + mu + sigma * eps with eps ~ N(0, 1) for each of the six numbers, in the coordinates of
    `torch.nn.functional.affine_grid`, where an image reaches from -1 to 1. What comes from outside the image is zero.

    Args:
        noise: sigma at the start, the same for all six numbers.
    """

    identity: Tensor

    def __init__(self, *, noise: float = 0.01) -> None:
        super().__init__()
        check(noise > 0, "noise", noise, "a number above 0")
        self.register_buffer("identity", torch.eye(2, 3), persistent=False)
        self.mean = nn.Parameter(torch.zeros(2, 3))
        self.log_deviation = nn.Parameter(torch.full((2, 3), math.log(noise)))

    def fit(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 3 or min(shape[1:]) < 2:
            raise UserError(
                f"augmentor affine moves images, inputs of shape {list(shape)} are none: use augmentor gaussian"
            )
        super().fit(shape)

    def matrices(self, count: int) -> Tensor:
        """float32 [count, 2, 3], drawn from the learned distribution."""
        draws = torch.randn(count, 2, 3, device=self.mean.device)
        return self.identity + self.mean + self.log_deviation.exp() * draws

    @torch.no_grad()
    def quantities(self, count: int) -> dict[str, Tensor]:
        """What the transformations do to an image: each is read as zoom, then shear, then rotation, then shift."""
        inverse = self.matrices(count).double()
        turned, moved = torch.linalg.inv(inverse[:, :, :2]), inverse[:, :, 2:]
        right, down = (-(turned @ moved).squeeze(-1)).T
        (a, b), (c, d) = turned[:, 0].T, turned[:, 1].T
        zoom_x = (a.square() + c.square()).sqrt()
        return {
            "shift right, share of width": right / 2,
            "shift down, share of height": down / 2,
            "rotation, degrees": torch.atan2(c, a).rad2deg(),
            "zoom across": zoom_x,
            "zoom along": (a * d - b * c) / zoom_x,
            "shear, degrees": torch.atan2(-(a * b + c * d), a * d - b * c).rad2deg(),
        }

    def forward(self, x: Tensor) -> Tensor:
        grid = F.affine_grid(self.matrices(len(x)), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
