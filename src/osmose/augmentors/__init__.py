"""Learned augmentations: what `hard` trains against the student."""

from osmose.augmentors.affine import Affine
from osmose.augmentors.augmentor import Augmentor
from osmose.augmentors.chain import Chain
from osmose.augmentors.gaussian import Gaussian
from osmose.augmentors.generator import Generative
from osmose.augmentors.mix import Mix
from osmose.augmentors.registry import AUGMENTORS, load_augmentor, make_augmentor

__all__ = [
    "AUGMENTORS",
    "Affine",
    "Augmentor",
    "Chain",
    "Gaussian",
    "Generative",
    "Mix",
    "load_augmentor",
    "make_augmentor",
]
