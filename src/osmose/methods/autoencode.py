"""Training a variational autoencoder, as the augmentor `generator` needs one (Kingma and Welling 2014, arXiv 1312.6114)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.engine.method import Method, Step
from osmose.engine.optimiser import Optimiser, Player
from osmose.errors import UserError, check
from osmose.figures.augmented import draw_augmented
from osmose.losses.precision import widened
from osmose.models.generator import Generator
from osmose.models.vae import ResidualVAE
from osmose.signals import Frozen


class Autoencode(Method):
    """The negative evidence bound for each pixel: binary cross-entropy of the reconstruction + beta * KL(posterior || N(0, 1)).

    Args:
        student: the generator that trains; its body is a `ResidualVAE`.
        frozen: not used.
        beta: weight of the divergence; below 1 reconstructions are sharper and the latent space less regular.
        optimiser: the generator's optimiser.
    """

    trains = Generator
    summary = "trains a variational autoencoder for the augmentor generator"
    source = "arXiv 1312.6114"

    def __init__(
        self,
        student: Generator,
        frozen: Mapping[str, Frozen],
        *,
        beta: float = 0.1,
        optimiser: Optimiser = Optimiser(
            name="adam", lr=2e-3, weight_decay=0.0, schedule="cosine", warmup_epochs=1, clip=1.0
        ),
    ) -> None:
        super().__init__()
        check(beta >= 0, "method.beta", beta, "at least 0")
        if not isinstance(student.body, ResidualVAE):
            raise UserError(f"method autoencode trains a vae, '{student.name}' is none: give --student fresh:vae")
        self.student, self.beta, self.optimiser = student, beta, optimiser

    def taught_by(self, teachers: Sequence[str]) -> str:
        return "the images themselves"

    def players(self) -> dict[str, Player]:
        return {"student": self.optimiser.player(self.student.parameters())}

    def forward(self, batch: Batch, clock: Clock) -> Step:
        vae, x = self.student.body, batch.x
        latent = vae.encode(x)
        drawn = vae.decode(latent.mean + (0.5 * latent.log_variance).exp() * torch.randn_like(latent.mean))
        with torch.autocast(x.device.type, enabled=False):
            reconstruction = F.binary_cross_entropy(widened(drawn), x)
        divergence = latent.divergence().mean() / x[0].numel()
        loss = reconstruction + self.beta * divergence
        return Step(loss, {"reconstruction": reconstruction.detach(), "divergence": divergence.detach()})

    def draw(self, folder: Path, batch: Batch) -> None:
        self.student.eval()
        with torch.no_grad():
            shown = {f"noise {noise:g}": self.student(batch.x, noise) for noise in (0.0, 0.5, 1.0)}
        draw_augmented(folder / "reconstructed.png", batch.x, shown)

    def products(self) -> dict[str, Generator]:
        return {"student": self.student}
