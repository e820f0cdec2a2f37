"""Measures, one a file."""

from osmose.evaluate.accuracy import accuracy
from osmose.evaluate.flips import negative_flips, positive_flips
from osmose.evaluate.mcnemar import mcnemar
from osmose.evaluate.mean_squared_error import mean_squared_error
from osmose.evaluate.predict import predict

__all__ = ["accuracy", "mcnemar", "mean_squared_error", "negative_flips", "positive_flips", "predict"]
