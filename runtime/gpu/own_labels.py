"""Labels of images of another size than the bundle's, at that size: made of the logits on the device, as the host makes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dovit.runtime.gpu.addresses import address
from dovit.runtime.gpu.device import Device, Launchers
from dovit.runtime.gpu.growing import Growing
from dovit.runtime.resize import label_dtype


class OwnLabels:
    """For the images of one pass at a time."""

    def __init__(self, device: Device, kernels: Launchers, element: str, logits: int, shape: Sequence[int]) -> None:
        """`logits`: where those of a pass lie, [B, C, h', w'] of type `element`."""
        self._device, self._kernels = device, kernels
        self._logits = element, logits
        self._batch, self._classes, self._height, self._width = shape
        self._dtype = label_dtype(self._classes)
        self._size = (0, 0)
        self._memory = Growing(device)

    @property
    def device_bytes(self) -> int:
        """Bytes held on the device, none before the first image of another size."""
        return self._memory.held

    @property
    def bytes(self) -> int:
        """Of the labels of one pass over images of the size that was prepared last."""
        return self._batch * self._size[0] * self._size[1] * self._dtype.itemsize

    def prepare(self, size: tuple[int, int]) -> None:
        """For images of this height and width. Raises DovitError where their labels do not fit into memory."""
        self._size = size
        self._memory.reserve(self.bytes, self.bytes, f"labelling an image of {size[0]}×{size[1]}")

    def enqueue(self, stream: int) -> None:
        """Queue the kernel."""
        element, logits = self._logits
        self._kernels.resized_labels(
            element,
            logits,
            self._memory.place,
            self._batch,
            self._classes,
            self._height,
            self._width,
            *self._size,
            stream,
        )

    def enqueue_download(self, stream: int) -> None:
        """Queue the copy back."""
        self._device.copy(address(self._memory.pinned), self._memory.place, self.bytes, stream)

    def read(self) -> np.ndarray:
        """[B, H, W], uint8 or, with more than 256 classes, int16, once the stream has got there."""
        return self._memory.pinned[: self.bytes].view(self._dtype).reshape(self._batch, *self._size).copy()
