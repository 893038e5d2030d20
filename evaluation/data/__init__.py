"""Data sets (Cityscapes, ADE20K, plain folders, procedural streets), augmentation, and batches of them; no torch."""

from dovit.evaluation.data.augment import Augmentation
from dovit.evaluation.data.dataset import IGNORE, Dataset, Sample
from dovit.evaluation.data.loader import batches
from dovit.evaluation.data.open import open_data
from dovit.evaluation.data.pairs import NoImagesError

__all__ = ["IGNORE", "Augmentation", "Dataset", "NoImagesError", "Sample", "batches", "open_data"]
