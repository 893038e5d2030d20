"""mmsegmentation's SETR and Segmenter: weights, and the configuration that says how they are used."""

from dovit.export.checkpoints.mmsegmentation.read import FAMILY

__all__ = ["FAMILY"]
