"""Signals: what frozen networks say."""

from osmose.signals.frozen import Frozen
from osmose.signals.kept import Kept
from osmose.signals.settings import Material, Signals
from osmose.signals.speaker import Speaker, teachers

__all__ = ["Frozen", "Kept", "Material", "Signals", "Speaker", "teachers"]
