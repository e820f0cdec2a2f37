"""Signals: what frozen networks say."""

from osmose.signals.frozen import Frozen
from osmose.signals.kept import Kept
from osmose.signals.settings import Signals

__all__ = ["Frozen", "Kept", "Signals"]
