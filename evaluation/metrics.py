"""mmsegmentation's metrics, computed from a confusion matrix, so memory does not grow with the number of images."""

from __future__ import annotations

import warnings

import numpy as np

from dovit.evaluation.data.dataset import IGNORE
from dovit.runtime.errors import DovitError


def valid_pixels(labels: np.ndarray, ignore: int = IGNORE) -> np.ndarray:
    """Which pixels count: neither 255, which every data set here has for "no label", nor `ignore`."""
    return (labels != IGNORE) & (labels != ignore)


class Confusion:
    """Counts pixels by (true class, predicted class)."""

    def __init__(self, classes: int, ignore: int = IGNORE) -> None:
        self.classes, self.ignore = classes, ignore
        self.counts = np.zeros((classes, classes), np.int64)

    def add(self, predicted: np.ndarray, labels: np.ndarray) -> None:
        """Count one image: class ids [H, W] each. Raises DovitError for a label that is no class, or another size."""
        if predicted.shape != labels.shape:
            sizes = (f"{s[1]}×{s[0]}" for s in (labels.shape, predicted.shape))
            raise DovitError("the labels are {} pixels, the image {}; they must be of one size".format(*sizes))
        seen = valid_pixels(labels, self.ignore)
        true, found = labels[seen].astype(np.int64), predicted[seen]
        if true.size and int(true.max()) >= self.classes:
            raise DovitError(f"a label is {int(true.max())}, and the model has {self.classes} classes")
        pairs = np.bincount(true * self.classes + found, minlength=self.classes**2)
        self.counts += pairs.reshape(self.classes, self.classes)

    @property
    def iou(self) -> np.ndarray:
        """[C] intersection over union; NaN for a class that neither labels nor predictions have."""
        hit = np.diag(self.counts).astype(np.float64)
        with np.errstate(invalid="ignore"):
            return hit / (self.counts.sum(axis=0) + self.counts.sum(axis=1) - hit)

    @property
    def accuracy(self) -> np.ndarray:
        """[C] share of a class's pixels that are found; NaN for a class that does not occur."""
        with np.errstate(invalid="ignore"):
            return np.diag(self.counts) / self.counts.sum(axis=1)

    def summary(self) -> dict[str, float]:
        """PA, mPA and mIoU in percent, as mmsegmentation's aAcc, mAcc and mIoU: means over classes that are not NaN."""
        total = self.counts.sum()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # all classes NaN: no pixel counts
            return {
                "PA": 100 * float(np.diag(self.counts).sum() / total) if total else float("nan"),
                "mPA": 100 * float(np.nanmean(self.accuracy)),
                "mIoU": 100 * float(np.nanmean(self.iou)),
            }
