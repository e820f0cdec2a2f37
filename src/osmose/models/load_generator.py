"""Generators by name: `vae` (packaged), `fresh:vae` with new weights, `file:PATH` (a run's, or a file of one)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

import osmose.models.generators
from osmose.errors import UserError, first_line, unknown
from osmose.models.generator import Generator
from osmose.models.model import Preprocessing
from osmose.models.vae import ResidualVAE
from osmose.random import stream as random_stream
from osmose.weights import read_weights

WEIGHTS = Path(osmose.models.generators.__file__).parent
ARCHITECTURES: dict[str, type[nn.Module]] = {"vae": ResidualVAE}
_UNIT = 4
"""What the sides of a VAE's images are multiples of."""


def load_generator(
    name: str | Mapping[str, Any] | nn.Module,
    *,
    channels: int,
    image_size: tuple[int, int],
    seed: int = 0,
    stream: str = "generator/init",
) -> Generator:
    """Give a generator by name, wrap a module, or build an architecture.

    Args:
        name: a name as above; a `Generator` (returned as it is), a module called as module(x, noise) (see `Generator`), or the
            architecture of a saved generator, which is built with new weights.
        channels: channels of the images it is given.
        image_size: their height and width.
        seed: seed of new weights.
        stream: name of the random stream that they are drawn from.

    Raises:
        UserError: for an unknown name, a file that holds no generator, or other channels than the images have.
    """
    if isinstance(name, Generator):
        return name
    plain = Preprocessing(mean=(0.0,) * channels, std=(1.0,) * channels, channels=channels)
    if isinstance(name, nn.Module):
        return Generator(name, name=f"module:{type(name).__name__}", architecture=None, preprocessing=plain)
    with random_stream(seed, stream):
        if isinstance(name, Mapping):
            return _built(name, "generator")
        way, _, rest = name.partition(":")
        if way == "file":
            path = Path(rest)
            generator = _read(path / "student.safetensors" if path.is_dir() else path, name)
        elif way == "fresh" and rest in ARCHITECTURES:
            size = [-(-side // _UNIT) * _UNIT for side in image_size]
            return _built({"name": rest, "arguments": {"channels": channels}, "image_size": size}, name)
        elif name in ARCHITECTURES:
            generator = _read(WEIGHTS / f"{name}.safetensors", name)
        else:
            raise unknown("generator", name, [*ARCHITECTURES, *(f"fresh:{one}" for one in ARCHITECTURES), "file:PATH"])
    if generator.preprocessing.channels != channels:
        raise UserError(
            f"generator '{name}' draws images of {generator.preprocessing.channels} channels, these have {channels}: train one "
            "on them, osmose run vae --data DATA, and give file:FOLDER"
        )
    return generator


def _built(architecture: Mapping[str, Any], name: str) -> Generator:
    body = ARCHITECTURES[architecture["name"]](**architecture["arguments"])
    channels, (height, width) = architecture["arguments"]["channels"], architecture["image_size"]
    return Generator(
        body,
        name=name,
        architecture={"source": "generator", **architecture},
        preprocessing=Preprocessing(
            mean=(0.0,) * channels, std=(1.0,) * channels, channels=channels, size=(height, width)
        ),
    )


def _read(path: Path, name: str) -> Generator:
    tensors, about = read_weights(path)
    architecture = about.get("architecture")
    if not isinstance(architecture, dict) or architecture.get("source") != "generator":
        raise UserError(f"'{path}' holds no generator: give the folder of a run of method autoencode")
    generator = _built(architecture, name)
    try:
        generator.body.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(
            f"'{path}' does not fit the architecture it names ({first_line(error)}): train it again"
        ) from None
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise UserError(f"'{path}' holds NaN or infinity: its training diverged; give an earlier file")
    return generator
