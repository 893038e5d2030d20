"""Procedural street scenes with exact labels in the Cityscapes classes: `scene(seed, height, width)`."""

from dovit.training.streets.scene import scene

__all__ = ["scene"]
