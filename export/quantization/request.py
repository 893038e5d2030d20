"""What is asked for by `--precision int8|fp8 --calibrate`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from dovit.runtime.bundle.open import sha256
from dovit.runtime.bundle.quantization import QuantizedName
from dovit.runtime.cli.inputs import find_inputs
from dovit.runtime.errors import DovitError, UsageError

MAX_IMAGES = 64  # to calibrate with, and to hold back from it for measuring


@dataclass(frozen=True)
class QuantizationRequest:
    """A type, image files to calibrate with, and a data set with labels to measure mIoU on (as dovit-eval's --data)."""

    kind: QuantizedName
    files: tuple[Path, ...]
    data: str | None = None

    def digest(self) -> str:
        """SHA-256 of the type and of the images. Raises DovitError for an image that cannot be read."""
        content = hashlib.sha256(f"{self.kind} {self.data}".encode())
        for file in self.files:
            try:
                content.update(sha256(file).encode())
            except OSError as error:
                raise DovitError(f"{file}: cannot be read: {error.strerror or error}") from None
        return content.hexdigest()


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
