"""Reading checkpoints: ours, mmsegmentation's, rstrudel/segmenter's, timm's and DeiT's."""

from dovit.export.checkpoints.load import LoadedModel, load_model
from dovit.export.checkpoints.options import ReadOptions
from dovit.export.checkpoints.own import save_model

__all__ = ["LoadedModel", "ReadOptions", "load_model", "save_model"]
