"""Procedural street scenes with exact labels in the Cityscapes classes: `scene(seed, height, width)`."""

from dovit.scenes.scene import scene

__all__ = ["scene"]
