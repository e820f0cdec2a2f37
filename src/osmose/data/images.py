"""Where pixels come from: an array in memory, or encoded images that are decoded on read."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor

from osmose.data.inputs import Inputs, MemoryInputs
from osmose.errors import UserError, missing_extra

IN_MEMORY = 2 << 30
"""Bytes of decoded pixels below which a data set is decoded once."""


FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are read; others of Pillow's call outside programs."""


class Encoded(Protocol):
    """PNG, JPEG or other image files, one a row."""

    def __len__(self) -> int: ...

    def open(self, row: int) -> BinaryIO:
        """The file at `row`."""

    def name(self, row: int) -> str:
        """What an error message calls the image at `row`."""

    def digest(self) -> bytes:
        """Identifies the files' content."""


@dataclass(frozen=True)
class Decoding:
    """How encoded images become arrays.

    Args:
        image_size: the shorter side is resized (bicubic) to image_size / crop_ratio, then the centre square of
            image_size pixels is kept. None: the images already have one size.
        crop_ratio: share of the shorter side that the centre crop keeps, in (0, 1].
    """

    image_size: int | None = None
    crop_ratio: float = 1.0


class DecodedImages(Inputs):
    """Encoded images, decoded whenever they are read. Needs the extra 'vision'.

    Args:
        encoded: the image files.
        decoding: resize and crop.
        shape: channels, height and width to decode to. None: three channels if any of 64 evenly spaced images has
            colour (their headers are read), otherwise one; the first image's size unless `decoding` has one.
    """

    def __init__(self, encoded: Encoded, decoding: Decoding, shape: tuple[int, ...] | None = None) -> None:
        with vision_extra():
            import PIL.Image  # noqa: F401
        self.encoded, self.decoding = encoded, decoding
        self.shape = shape or self._probe()

    def __len__(self) -> int:
        return len(self.encoded)

    def read(self, rows: Tensor) -> Tensor:
        """The images at `rows`; raises UserError naming one that is no image or does not go with the others."""
        pixels = np.empty((len(rows), *self.shape), np.uint8)
        for image, row in zip(pixels, rows.tolist(), strict=True):
            image[...] = self._decode(row)
        return torch.from_numpy(pixels)

    def digest(self) -> bytes:
        """Of the encoded images and how they are decoded."""
        return hashlib.sha256(self.encoded.digest() + repr((self.shape, self.decoding)).encode()).digest()

    def _probe(self) -> tuple[int, int, int]:
        from PIL import Image

        sizes, colour = [], False
        for row in sorted({i * (len(self) - 1) // 63 for i in range(64)}):
            with self._errors(row), self.encoded.open(row) as file, Image.open(file, formats=FORMATS) as image:
                sizes.append(image.size)
                colour |= image.mode not in ("1", "L")
        width, height = (self.decoding.image_size,) * 2 if self.decoding.image_size else sizes[0]
        return (3 if colour else 1, height, width)

    def _decode(self, row: int) -> np.ndarray:
        from PIL import Image

        channels, height, width = self.shape
        with self._errors(row), self.encoded.open(row) as file, Image.open(file, formats=FORMATS) as image:
            if image.mode[0] in "IF" or (channels == 1 and image.mode not in ("1", "L")):
                raise UserError(f"{self.encoded.name(row)} has mode {image.mode}, the others are 8-bit "
                                f"{'grey' if channels == 1 else 'colour'}: convert the images to one mode")  # fmt: skip
            decoded = image.convert("L" if channels == 1 else "RGB")
        if self.decoding.image_size:
            scale = int(self.decoding.image_size / self.decoding.crop_ratio) / min(decoded.size)
            if scale != 1:
                size = (max(width, round(decoded.width * scale)), max(height, round(decoded.height * scale)))
                decoded = decoded.resize(size, Image.Resampling.BICUBIC)
            left, top = (decoded.width - width) // 2, (decoded.height - height) // 2
            decoded = decoded.crop((left, top, left + width, top + height))
        elif decoded.size != (width, height):
            raise UserError(f"{self.encoded.name(row)} is {decoded.width}x{decoded.height} pixels, others are "
                            f"{width}x{height}: set data.image_size")  # fmt: skip
        return np.asarray(decoded).reshape(height, width, channels).transpose(2, 0, 1)

    @contextmanager
    def _errors(self, row: int) -> Iterator[None]:
        from PIL import Image

        try:
            yield
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{self.encoded.name(row)} is not a readable image: replace or remove it") from error


def settle(images: Inputs) -> Inputs:
    """The same images decoded into memory where they fit (see IN_MEMORY), otherwise as they are."""
    channels, height, width = images.shape
    if isinstance(images, MemoryInputs) or len(images) * channels * height * width >= IN_MEMORY:
        return images
    return MemoryInputs(images.read(torch.arange(len(images))))


@contextmanager
def vision_extra() -> Iterator[None]:
    """Imports inside the block belong to the extra 'vision': a missing one is a UserError."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing_extra("parquet and image folders need", "vision") from error
