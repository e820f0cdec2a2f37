"""Measures, one a file."""

from osmose.evaluate.accuracy import accuracy
from osmose.evaluate.flips import negative_flips, positive_flips
from osmose.evaluate.mcnemar import mcnemar
from osmose.evaluate.outcomes import outcomes
from osmose.evaluate.predict import predict

__all__ = ["accuracy", "mcnemar", "negative_flips", "outcomes", "positive_flips", "predict"]
