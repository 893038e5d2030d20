"""What is asked for by `--precision int8|fp8 --calibrate`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from dovit.evaluation.data import open_data
from dovit.evaluation.data.pairs import Pair, Pairs
from dovit.runtime.bundle.open import sha256
from dovit.runtime.bundle.quantization import QuantizedName
from dovit.runtime.cli.inputs import find_inputs
from dovit.runtime.errors import DovitError, UsageError

MAX_IMAGES = 64  # to calibrate with, and to hold back from it for measuring
MAX_LABELLED = 200


@dataclass(frozen=True)
class QuantizationRequest:
    """A type, image files to calibrate with, and a data set with labels to measure mIoU on (as dovit-eval's --data)."""

    kind: QuantizedName
    files: tuple[Path, ...]
    data: str | None = None

    def digest(self) -> str:
        """SHA-256 of the type, the images, and the labelled images with their labels. Raises DovitError for a file that cannot be
        read, and as `open_data` does."""
        content = hashlib.sha256(f"{self.kind} {self.data}".encode())
        files = list(self.files)
        for pair in self._pairs():
            content.update(f"{pair.ids} {None if pair.table is None else pair.table.tolist()}".encode())
            files += [pair.image, pair.labels]
        for file in files:
            try:
                content.update(sha256(file).encode())
            except OSError as error:
                raise DovitError(f"{file}: cannot be read: {error.strerror or error}") from None
        return content.hexdigest()

    def _pairs(self) -> list[Pair]:
        """The labelled images that are measured on, where they are files."""
        if self.data is None:
            return []
        dataset = open_data(self.data, "val", size=(1, 1))  # drawn scenes want a size, and are no files
        return [dataset.pairs[k] for k in labelled_numbers(len(dataset))] if isinstance(dataset, Pairs) else []


def labelled_numbers(count: int) -> list[int]:
    """Which of `count` labelled images are measured on, at even distances."""
    taken = min(count, MAX_LABELLED)
    return [number * count // taken for number in range(taken)]


def quantization_request(
    precision: str | None, calibrate: list[str] | None, data: str | None
) -> QuantizationRequest | None:
    """From the options' values; None where the products stay float32. Of many images, MAX_IMAGES are taken at even distances.
    Raises UsageError where options do not go together, or name no image."""
    kind = next((kind for kind in get_args(QuantizedName) if kind == precision), None)
    if kind is None:
        if calibrate or data is not None:
            raise UsageError(f"{'--calibrate' if calibrate else '--data'} is for --precision int8 or fp8")
        return None
    if not calibrate:
        raise UsageError(
            f"--precision {precision} needs --calibrate: some dozens of images like those that the model is for, without labels"
        )
    files = [one.file for one in find_inputs(calibrate)]
    count = min(len(files), MAX_IMAGES)
    return QuantizationRequest(kind, tuple(files[k * len(files) // count] for k in range(count)), data)
