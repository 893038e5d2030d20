"""Reading checkpoints: ours, mmsegmentation's, rstrudel/segmenter's, timm's and DeiT's."""

from dovit.export.checkpoints.load import LoadedModel, load_model
from dovit.export.checkpoints.options import ReadOptions
from dovit.export.checkpoints.own import check_space, save_model

__all__ = ["LoadedModel", "ReadOptions", "check_space", "load_model", "save_model"]
