"""Targets: which frozen network's output each sample is taught with. Every logit method accepts every target."""

from osmose.targets.choice import Choice
from osmose.targets.flips import FlipRule, by_flips
from osmose.targets.partition import partition
from osmose.targets.registry import TARGETS, Target, find_target

__all__ = ["TARGETS", "Choice", "FlipRule", "Target", "by_flips", "find_target", "partition"]
