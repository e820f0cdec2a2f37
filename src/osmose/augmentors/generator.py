"""Learned changes by a network that draws images, as a variational autoencoder."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from osmose.augmentors.augmentor import Augmentor
from osmose.errors import UserError, check, first_line
from osmose.models.load_generator import load_generator


class Generative(Augmentor):
    """x~ = x + G(x, eta) - G0(x, 0), where the generator G trains and G0 is its frozen copy from the start.

    A generator's images are like x but not x: with the difference the augmentation starts at the identity, and what the generator
    cannot draw stays in the image. HARD's (arXiv 2305.14890) is G(x, eta) alone. The result is kept in [0, 1].

    Args:
        model: a generator by name (`vae`, `fresh:vae`, `file:FOLDER`), or a module called as module(x, noise).
        noise: eta at the start, the scale of the generator's random numbers; learned.
        rate: learning rate of the generator's weights over that of the augmentor's optimiser; the paper's are 1e-4 and 0.05.
    """

    model: Any
    start: Any

    def __init__(self, *, model: Any = "vae", noise: float = 0.01, rate: float = 0.002) -> None:
        super().__init__()
        check(rate > 0, "rate", rate, "a number above 0")
        check(noise > 0, "noise", noise, "a number above 0")
        if not isinstance(model, str | Mapping | nn.Module):
            raise UserError(f"key 'model' is {model!r}: give a generator's name, for example vae")
        self.rate = rate
        self._given = (model,)  # not a submodule yet
        self.log_noise = nn.Parameter(torch.tensor(math.log(noise)))

    def fit(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 3 or min(shape[1:]) < 2:
            raise UserError(
                f"augmentor generator draws images, inputs of shape {list(shape)} are none: use augmentor gaussian"
            )
        super().fit(shape)
        channels, height, width = shape
        self.model = copy.deepcopy(load_generator(self._given[0], channels=channels, image_size=(height, width)))
        self._try(shape)
        self.start = copy.deepcopy(self.model).requires_grad_(False)

    def learned(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.named_parameters() if not name.startswith("start.")}

    def rates(self) -> list[tuple[list[nn.Parameter], float]]:
        weights = [parameter for name, parameter in self.learned().items() if name.startswith("model.")]
        return [(weights, self.rate), ([self.log_noise], 1.0)]

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.model(x, self.log_noise.exp()) - self.start(x)
        return (x + change).clamp(0, 1)

    def description(self) -> Any:
        architecture = self.model.architecture
        return architecture and {**(self.section or {}), "name": "generator", "model": architecture}

    def _try(self, shape: tuple[int, ...]) -> None:
        """Two images there and back: what a generator cannot do is found before the first step."""
        x = torch.rand(2, *shape, requires_grad=True)
        try:
            drawn = self.model(x, torch.tensor(0.01))
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"generator '{self.model.name}' fails on images of {'x'.join(map(str, shape))} "
                f"({first_line(error)}): it is called as module(x, noise)"
            ) from error
        if drawn.shape != x.shape or not drawn.isfinite().all():
            raise UserError(
                f"generator '{self.model.name}' gives {list(drawn.shape)} for images of {list(x.shape)}, or values that are not "
                "finite: give one that draws images of the shape it is given"
            )
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        found = torch.autograd.grad(drawn.sum(), [x, *trained], allow_unused=True) if drawn.requires_grad else [None]
        if not trained or found[0] is None or all(gradient is None for gradient in found[1:]):
            raise UserError(
                f"generator '{self.model.name}' passes no gradients to its images and parameters: give a differentiable module "
                "with parameters that train"
            )
