"""Data sets (Cityscapes, ADE20K, plain folders, procedural streets), augmentation, and batches of them; no torch."""

from dovit.training.data.augment import Augmentation
from dovit.training.data.dataset import IGNORE, Dataset, Sample
from dovit.training.data.loader import batches
from dovit.training.data.open import open_data

__all__ = ["IGNORE", "Augmentation", "Dataset", "Sample", "batches", "open_data"]
