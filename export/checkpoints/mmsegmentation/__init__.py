"""mmsegmentation's SETR and Segmenter: weights, and the configuration that says how they are used."""

from dovit.export.checkpoints.mmsegmentation.read import is_mmseg, read_mmseg

__all__ = ["is_mmseg", "read_mmseg"]
