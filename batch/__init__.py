"""Many images on many machines: `Segmenter` for Ray Data's `map_batches`, and dovit-map."""

from dovit.batch.segmenter import Segmenter

__all__ = ["Segmenter"]
