"""Corrupted images: the 19 corruptions of ImageNet-C (arXiv 1903.12261) and MNIST-C's translation (arXiv 1906.02337)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from osmose.errors import UserError, missing_extra, unknown

IMAGENET_C = (
    "gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise",
    "gaussian_blur", "glass_blur", "defocus_blur", "motion_blur", "zoom_blur",
    "fog", "frost", "snow", "spatter",
    "contrast", "brightness", "saturate", "jpeg_compression", "pixelate", "elastic_transform",
)  # fmt: skip
"""Those of the package corrupt-tta, which sets their strengths as ImageNet-C does, for images of 224 pixels."""
NAMES = (*IMAGENET_C, "translate")
SEVERITIES = (1, 2, 3, 4, 5)
_SALT_AND_PEPPER = (0.03, 0.06, 0.09, 0.17, 0.27)
"""Share of the values that `impulse_noise` replaces; the package's own draws from a generator that cannot be seeded."""


@dataclass(frozen=True)
class Corruption:
    """A corruption at one severity.

    Attributes:
        name: one of `NAMES`.
        severity: 1 to 5.
    """

    name: str
    severity: int

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        """The corrupted image, uint8 as given.

        Args:
            image: uint8 [H, W, C]. Of one channel it is corrupted as a grey picture, of which the first channel is kept.
            seed: of the random numbers; numpy's global generator is left as it was.

        Raises:
            UserError: when the package that does it is not installed.
        """
        rng = np.random.default_rng(seed)
        if self.name == "translate":
            return _translate(image, self.severity, rng)
        if self.name == "impulse_noise":
            return _impulse_noise(image, _SALT_AND_PEPPER[self.severity - 1], rng)
        functions = _functions()
        with _seeded(int(rng.integers(2**32))):
            colour = np.ascontiguousarray(image if image.shape[-1] == 3 else image.repeat(3, -1))
            corrupted: np.ndarray = np.asarray(functions[self.name](colour, self.severity))
        return corrupted.clip(0, 255).astype(np.uint8)[..., : image.shape[-1]]


def parse(names: Iterable[str]) -> list[Corruption]:
    """Corruptions from names: "fog:3" at one severity, "fog" at all five, "all" for the nineteen of ImageNet-C.

    Raises:
        UserError: for an unknown name or severity.
    """
    found: list[Corruption] = []
    for text in names:
        name, colon, severity = text.partition(":")
        if name != "all" and name not in NAMES:
            raise unknown("corruption", name, ("all", *NAMES))
        if colon and severity not in map(str, SEVERITIES):
            raise UserError(f"corruption '{text}' has no severity 1 to 5: write for example {name}:3")
        for one in IMAGENET_C if name == "all" else (name,):
            found += [Corruption(one, int(at)) for at in ([severity] if colon else SEVERITIES)]
    return list(dict.fromkeys(found))


def check_available(corruptions: Iterable[Corruption]) -> None:
    """Raise `UserError` where one of them needs a package that is not installed."""
    if any(one.name not in ("translate", "impulse_noise") for one in corruptions):
        _functions()


def _translate(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Moved by `severity` pixels along both axes, each way as likely; zeros come in (MNIST-C)."""
    down, right = severity * rng.choice([-1, 1], 2)
    height, width = image.shape[:2]
    padded = np.pad(image, ((severity, severity), (severity, severity), (0, 0)))
    top, left = severity - down, severity - right
    return padded[top : top + height, left : left + width]


def _impulse_noise(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A share of the values becomes black or white, each as likely."""
    corrupted = image.copy()
    hit = rng.random(image.shape) < share
    corrupted[hit] = 255 * rng.integers(0, 2, int(hit.sum()), dtype=np.uint8)
    return corrupted


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


def _functions() -> dict[str, Any]:
    try:
        import corrupt_tta
        import cv2
    except ModuleNotFoundError:
        raise missing_extra("corruptions but translate and impulse_noise need", "robustness") from None
    except ImportError as error:
        raise UserError(
            f"opencv cannot be loaded ({error}): apt install libgl1 libglib2.0-0, or pip install opencv-python-headless after it"
        ) from None
    cv2.setNumThreads(0)
    functions: dict[str, Any] = corrupt_tta.corruption_dict
    return functions
