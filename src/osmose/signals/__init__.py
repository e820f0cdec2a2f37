"""Signals: what frozen networks say."""

from osmose.signals.frozen import Frozen

__all__ = ["Frozen"]
