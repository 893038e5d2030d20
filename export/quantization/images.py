"""The images that a quantization is calibrated and measured with, at the bundle's size."""

from __future__ import annotations

import numpy as np

from dovit.engines.accuracy import Scene
from dovit.evaluation.data import IGNORE, open_data
from dovit.export.quantization.bundle import Calibration
from dovit.export.quantization.request import QuantizationRequest, labelled_numbers
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.images import read_image
from dovit.runtime.resize import resize_image
from dovit.runtime.slide import enlarged_size
from dovit.runtime.whole import fit_image


def load_images(manifest: Manifest, request: QuantizationRequest) -> Calibration:
    """The images. Raises DovitError with the file that cannot be read, UsageError for a data set that does not fit the model."""
    images = [Scene(at_model_size(manifest, read_image(file))) for file in request.files]
    if request.data is None:
        return Calibration(images)
    dataset = open_data(request.data, "val", size=manifest.image_size, classes=manifest.classes)
    labelled = []
    for number in labelled_numbers(len(dataset)):
        sample = dataset[number]
        labels = at_model_size(manifest, np.repeat(sample.labels[..., None], 3, axis=2), labels=True)[..., 0]
        labelled.append(Scene(at_model_size(manifest, sample.image), labels))
    return Calibration(images, labelled)


def at_model_size(manifest: Manifest, image: np.ndarray, *, labels: bool = False) -> np.ndarray:
    """[H, W, 3] uint8 as one pass of the model sees it: resized in mode whole, the window in its middle in mode slide.
    `labels`: takes the nearest pixel, and pads with IGNORE."""
    height, width = manifest.image_size
    if manifest.mode == "slide":
        scaled = enlarged_size((image.shape[0], image.shape[1]), manifest.image_size)
        large = _resized(image, scaled, labels)
        top, left = (scaled[0] - height) // 2, (scaled[1] - width) // 2
        return np.ascontiguousarray(large[top : top + height, left : left + width])
    if not labels:
        return fit_image(image, manifest.image_size, keep_ratio=manifest.keep_ratio, fill=manifest.mean).pixels
    if not manifest.keep_ratio:
        return _resized(image, manifest.image_size, labels)
    inside = fit_image(image[..., :3], manifest.image_size, keep_ratio=True).inside
    padded = np.full((height, width, 3), IGNORE, np.uint8)
    padded[: inside[0], : inside[1]] = _resized(image, inside, labels)
    return padded


def _resized(image: np.ndarray, size: tuple[int, int], labels: bool) -> np.ndarray:
    if not labels:
        return resize_image(image, size)
    rows, columns = (
        (np.arange(new) * 2 + 1) * old // (2 * new) for new, old in zip(size, image.shape[:2], strict=True)
    )
    return image[rows[:, None], columns]
