"""The accuracy of a bundle in bf16 on this CPU: measured when it is first loaded so, and kept (records.py).

Drawn scenes and noise are run in float32 and in bf16, at the bundle's ξ and with every token kept. The C++ runtime reads what is
kept (runtime/cpp/openvino/accuracy.cpp): its fields and the bounds are the same there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import Field

from dovit.runtime.bundle.frozen import Frozen
from dovit.runtime.bundle.open import Bundle
from dovit.runtime.chain import Chain, ChainResult
from dovit.runtime.errors import DovitError
from dovit.runtime.openvino.records import keep_record, manifest_hash, read_record, record_file
from dovit.runtime.palettes import palette_for
from dovit.scenes import scene

LOG = logging.getLogger("dovit")
MIN_LABELS_EQUAL = 0.97
MIN_SAME_FATE = 0.95
MAX_MIOU_LOSS = 0.01
MEASUREMENT = 2  # a higher number where `measure` changes: what was kept by another is not read
SCENES = (3_000_000, 3_000_001)  # apart from those that models are trained and evaluated on


class Bf16Accuracy(Frozen):
    """`labels_equal`: share of the labels that are float32's, the worse of both settings; `same_fate`: share of the tokens that
    stop at the same decision, or at none, as in float32; `miou_loss`: float32's mIoU on the labelled scenes minus bf16's, the
    larger of both settings, 0 for models of other classes than the scenes'."""

    labels_equal: float = Field(ge=0, le=1)
    same_fate: float = Field(ge=0, le=1)
    miou_loss: float = Field(ge=-1, le=1)

    def check(self, bundle: Path) -> None:
        """Raises DovitError where a figure is beyond its bound."""
        shares = self.labels_equal >= MIN_LABELS_EQUAL and self.same_fate >= MIN_SAME_FATE
        if not shares or self.miou_loss > MAX_MIOU_LOSS:
            raise DovitError(
                f"{bundle}: bf16 is too far from float32 for this model: {self.labels_equal:.1%} of the labels are equal (at "
                f"least {MIN_LABELS_EQUAL:.0%}), {self.same_fate:.1%} of the tokens stop at the same decision (at least "
                f"{MIN_SAME_FATE:.0%}), and mIoU is {100 * self.miou_loss:.2f} points lower (at most {100 * MAX_MIOU_LOSS:g}): "
                "use precision fp32, or check_accuracy=False (--no-check-accuracy) to have it all the same"
            )


def known_accuracy(bundle: Bundle, chain: Chain, float32: Callable[[], Chain]) -> Bf16Accuracy:
    """Of `chain`, which runs `bundle` in bf16: from an earlier load, or measured now against the chain that `float32` loads."""
    file = record_file("bf16", MEASUREMENT, manifest_hash(bundle))
    found = read_record(file, Bf16Accuracy)
    if found is None:
        LOG.info("%s: comparing bf16 with float32, once for this bundle and CPU", bundle.root)
        found = keep_record(file, measure(chain, float32()))
    return found


def measure(chain: Chain, reference: Chain) -> Bf16Accuracy:
    """Compare `chain` with `reference` on two drawn scenes and on noise."""
    manifest = chain.manifest
    height, width = manifest.image_size
    scenes = [scene(number, height, width) for number in SCENES]
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    labelled = manifest.class_names == palette_for("cityscapes", 19)[0]  # the scenes' classes
    everything = [manifest.tokens] * len(manifest.decisions)
    equal, losses, fates = [], [0.0], []
    for keep_all in (False, True):
        shares, pairs = [], []
        for image in (*(image for image, _ in scenes), noise):
            made, expected = (
                one.run(
                    image[None],
                    manifest.thresholds,
                    range(manifest.tokens + 1),
                    counts=everything if keep_all else None,
                )
                for one in (chain, reference)
            )
            shares.append(float((made.labels == expected.labels).mean()))
            pairs.append((expected.labels[0], made.labels[0]))
            if not keep_all:
                fates.append(float((_fates(made, manifest.tokens) == _fates(expected, manifest.tokens)).mean()))
        equal.append(float(np.mean(shares)))
        if labelled:
            truth = np.stack([labels for _, labels in scenes])
            before, after = (_miou(truth, np.stack(found)) for found in zip(*pairs[: len(scenes)], strict=True))
            losses.append(before - after)
    return Bf16Accuracy(labels_equal=min(equal), same_fate=float(np.mean(fates)), miou_loss=max(losses))


def _miou(truth: np.ndarray, found: np.ndarray) -> float:
    """Mean over the classes that occur in either; 255 in `truth` does not count."""
    counted = truth != 255
    truth, found = truth[counted].astype(np.int64), found[counted].astype(np.int64)
    both = np.bincount(truth[truth == found], minlength=256)
    either = np.bincount(truth, minlength=256) + np.bincount(found, minlength=256) - both
    return float((both[either > 0] / either[either > 0]).mean())


def _fates(result: ChainResult, tokens: int) -> np.ndarray:
    """[B, N]: after how many decisions each token was still kept."""
    fates = np.zeros((len(result.labels), tokens), np.int64)
    for decision in result.decisions:
        kept = np.take_along_axis(decision.index, decision.keep, axis=1)
        np.put_along_axis(fates, kept, np.take_along_axis(fates, kept, axis=1) + 1, axis=1)
    return fates
