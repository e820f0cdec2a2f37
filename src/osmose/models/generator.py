"""Networks that draw images like the ones they are given."""

import torch
import torch.nn.functional as F
from torch import Tensor

from osmose.errors import UserError
from osmose.models.model import Predictor, Preprocessing


class Generator(Predictor):
    """Images to images like them, at random, differentiably in the images and in its parameters.

    Its body is called as body(x, noise): images [B, C, H, W] in [0, 1] and a scalar, to images of the same shape. `noise` scales
    every random number that the body draws; with 0 it is deterministic. (A very deep VAE scales the deviation of each block's
    posterior by it, a residual-quantised one adds so much noise to its latent.) Only the preprocessing's channels and size count.
    """

    preprocessing: Preprocessing

    def forward(self, x: Tensor, noise: Tensor | float = 0.0) -> Tensor:
        """Images like x [B, C, H, W], of its shape.

        Images of another size than the body's are resized to it, and the result is resized back.

        Raises:
            UserError: when the channels do not fit.
        """
        wanted, size = self.preprocessing, x.shape[-2:]
        if x.shape[1] != wanted.channels:
            raise UserError(
                f"generator '{self.name}' takes images of {wanted.channels} channels, these have {x.shape[1]}: "
                "train one on such images, osmose run vae --data DATA"
            )
        noise = torch.as_tensor(noise, device=x.device)
        if wanted.size is None or size == wanted.size:
            drawn: Tensor = self.body(x, noise)
            return drawn
        fitted = F.interpolate(x, wanted.size, mode="bilinear", antialias=True)
        return F.interpolate(self.body(fitted, noise), size, mode="bilinear", antialias=True)

    @property
    def width(self) -> int:
        """One number: an error."""
        return 1

    def answer(self, x: Tensor) -> Tensor:
        """The mean squared error of each image drawn without noise."""
        drawn: Tensor = self(x)
        return (drawn - x).float().square().flatten(1).mean(1, keepdim=True)
