"""Methods: one file, one published way to transfer knowledge."""

from osmose.methods.registry import METHODS, find_method

__all__ = ["METHODS", "find_method"]
