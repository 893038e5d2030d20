"""What is counted over many images: mmsegmentation's metrics, and quantiles."""

import math

import numpy as np
import pytest
import torch

from dovit.evaluation.histogram import LogHistogram
from dovit.evaluation.metrics import Confusion
from dovit.runtime.errors import DovitError


@pytest.mark.oracle
@pytest.mark.usefixtures("mmsegmentation")
@pytest.mark.parametrize("seed", range(6))
def test_metrics_are_mmsegmentations(seed: int) -> None:
    from mmseg.evaluation import IoUMetric

    random = np.random.default_rng(seed)
    classes = int(random.integers(3, 30))
    present = random.choice(classes, size=max(2, classes // 2), replace=False)  # the others do not occur
    confusion, metric = Confusion(classes), IoUMetric(iou_metrics=["mIoU"])
    metric.dataset_meta = {"classes": tuple(map(str, range(classes)))}
    for _ in range(4):
        labels = random.choice(present, size=(33, 47)).astype(np.uint8)
        guess = np.where(random.random(labels.shape) < 0.6, labels, random.choice(present[1:], size=labels.shape))
        labels[random.random(labels.shape) < 0.1] = 255
        confusion.add(guess.astype(np.uint8), labels)
        sample = {
            "pred_sem_seg": {"data": torch.tensor(guess)[None]},
            "gt_sem_seg": {"data": torch.tensor(labels)[None]},
        }
        metric.process({}, [sample])
    expected = metric.compute_metrics(metric.results)  # rounded to two digits
    found = confusion.summary()
    for ours, theirs in (("PA", "aAcc"), ("mPA", "mAcc"), ("mIoU", "mIoU")):
        assert found[ours] == pytest.approx(expected[theirs], abs=0.00501)


def test_metrics_by_hand() -> None:
    confusion = Confusion(3)
    confusion.add(np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 255]]))
    assert confusion.iou.tolist()[:2] == [0.5, 0.5] and math.isnan(confusion.iou[2])
    assert confusion.summary() == pytest.approx({"PA": 200 / 3, "mPA": 75, "mIoU": 50})
    assert math.isnan(Confusion(3).summary()["mIoU"])
    with pytest.raises(DovitError, match="label is 7"):
        confusion.add(np.zeros((1, 1), int), np.array([[7]]))
    with pytest.raises(DovitError, match="labels are 2×1 pixels, the image 1×1"):
        confusion.add(np.zeros((1, 1), int), np.array([[0, 0]]))


def test_another_ignore_index() -> None:
    confusion = Confusion(3, ignore=0)
    confusion.add(np.array([[1, 2, 1]]), np.array([[0, 2, 255]]))
    assert confusion.summary()["PA"] == 100 and confusion.counts.sum() == 1


def test_quantiles_to_a_percent() -> None:
    values, spread = np.random.default_rng(0).lognormal(-4, 1, 5000), LogHistogram()
    for value in values:
        spread.add(float(value))
    for share in (0.1, 0.5, 0.9):
        assert spread.quantile(share) == pytest.approx(np.quantile(values, share, method="inverted_cdf"), rel=0.011)
    assert math.isnan(LogHistogram().quantile(0.5))
