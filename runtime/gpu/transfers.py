"""Copies of inputs to the device and of results back to the host, through pinned memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.chain import ChainResult, DecisionResult
from dovit.runtime.gpu.device import address
from dovit.runtime.gpu.program import LoadedProgram
from dovit.runtime.resize import label_dtype


class Transfers:
    """Pinned memory of one pass under way."""

    def __init__(self, program: LoadedProgram) -> None:
        self._program = program
        device = program.device
        self._image = device.pinned(program.bytes("image"))
        self._thresholds = device.pinned(program.bytes("thresholds"))
        self._results = device.pinned(program.program.result_bytes)
        self.resizes = False  # whether the images written last have another size than the bundle's

    @property
    def input_bytes(self) -> int:
        """What is copied to the device for the images written last."""
        images = self._program.resizer.uploaded_bytes if self.resizes else len(self._image)
        return images + len(self._thresholds)

    def write(self, images: np.ndarray, thresholds: Sequence[float]) -> None:
        """Fill the host's side: images [B, H, W, 3] uint8, one ξ a decision. Raises DovitError where images of another size
        than the bundle's do not fit into memory."""
        self.resizes = images.shape[1:3] != self._program.manifest.image_size
        if self.resizes:
            self._program.resizer.write(images)
            self._program.resized_labels.prepare((images.shape[1], images.shape[2]))
        else:
            self._image[:] = np.ascontiguousarray(images).reshape(-1)
        self._thresholds.view(np.float32)[: len(thresholds)] = thresholds

    def enqueue_inputs(self, stream: int, *, resized: bool = False) -> None:
        """Queue the copies to the device: of images in the bundle's size, or of those that are to be `resized`."""
        copy, on_device = self._program.device.copy, self._program.address
        if resized:
            self._program.resizer.enqueue_upload(stream)
        else:
            copy(on_device("image"), address(self._image), len(self._image), stream)
        copy(on_device("thresholds"), address(self._thresholds), len(self._thresholds), stream)

    def enqueue_resized(self, stream: int) -> None:
        """Queue the copies of images of another size, and the resizing."""
        self.enqueue_inputs(stream, resized=True)
        self._program.resizer.enqueue(self._program.address("image"), stream)

    def enqueue_results(self, stream: int) -> None:
        """Queue the copy back."""
        self._program.device.copy(address(self._results), self._program.results, len(self._results), stream)

    def enqueue_resized_labels(self, stream: int) -> None:
        """Queue what makes labels at the size of the images, if that is not the bundle's, and their copy back."""
        if self.resizes:
            self._program.resized_labels.enqueue(stream)
            self.enqueue_labels_download(stream)

    def enqueue_labels_download(self, stream: int) -> None:
        """Queue that copy."""
        self._program.resized_labels.enqueue_download(stream)

    def read(self) -> ChainResult:
        """What came back, once the stream has got there: labels at the size of the images. Logits stay on the device: empty
        here."""
        manifest, batch = self._program.manifest, self._program.batch
        decided = []
        before = manifest.tokens  # tokens that the decision was made on
        for decision in self._program.program.decisions:
            if before == 0:
                break
            kept = int(self._values(decision.capacity, np.int32, 1)[0])
            confidence = self._values(decision.confidence, np.float32, batch * before).reshape(batch, before)
            index = self._values(decision.index, np.int32, batch * before).reshape(batch, before)
            keep = self._values(decision.keep, np.int32, batch * kept).reshape(batch, kept)
            decided.append(DecisionResult(confidence.copy(), index.copy(), keep.copy()))
            before = kept
        labels = self._program.resized_labels.read() if self.resizes else self._labels(manifest, batch)
        return ChainResult(labels, np.empty((batch, 0), np.float32), tuple(decided), {})

    def _labels(self, manifest: Manifest, batch: int) -> np.ndarray:
        height, width = manifest.image_size
        dtype = np.dtype(self._program.program.tensor("labels").dtype)
        values = self._values("labels", dtype, batch * height * width).reshape(batch, height, width)
        return values.astype(label_dtype(manifest.classes))

    def _values(self, name: str, dtype: type | np.dtype, count: int) -> np.ndarray:
        start = self._program.result_offset(name)
        return self._results[start : start + count * np.dtype(dtype).itemsize].view(dtype)
