"""Images of another size than the bundle's: resized on the device as Pillow does it, to the bit, and labelled at their own size.

What resizing needs lies in one piece of pinned memory and again on the device, so one copy takes it there: the weights across,
those down, the pixels. On the device scratch memory comes after them. Labels are made of the logits on the device, as the host
makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dovit.runtime.gpu.buffers import StagingBuffers, aligned
from dovit.runtime.gpu.device import Device, Launchers, address
from dovit.runtime.resize import label_dtype

TABLES = 64  # of weights that are kept, on the host: one a width or height
MAX_ROWS = 65535  # of an image: the kernel's grid has a block for each


@dataclass(frozen=True)
class _Layout:
    """Images [B, height, width, 3], with so many weights a pixel; where what follows the weights across begins, in bytes."""

    height: int
    width: int
    across_width: int
    down_width: int
    down: int
    pixels: int
    scratch: int  # and where the upload ends
    size: int


class ImageResizer:
    """For the images of one pass at a time."""

    def __init__(self, device: Device, kernels: Launchers, size: tuple[int, int], batch: int) -> None:
        """`size`: the bundle's, height and width."""
        self._device, self._kernels, self._size, self._batch = device, kernels, size, batch
        self._taps = lru_cache(TABLES)(kernels.resize_taps)
        self._buffers = StagingBuffers(device)
        self._layout: _Layout | None = None

    @property
    def device_bytes(self) -> int:
        """Bytes held on the device, none before the first image of another size."""
        return self._buffers.device_bytes

    @property
    def uploaded_bytes(self) -> int:
        """What is copied to the device for the images written last."""
        return self._written.scratch

    @property
    def moved_bytes(self) -> int:
        """What resizing one of them must read and write once."""
        return 3 * (self._written.height * self._written.width + self._size[0] * self._size[1])

    def write(self, images: np.ndarray) -> None:
        """Fill the host's side: images [B, H, W, 3] uint8 of any size. Raises DovitError where they do not fit into memory."""
        height, width = images.shape[1:3]
        across, across_width = self._taps(width, self._size[1])
        down, down_width = self._taps(height, self._size[0])
        down_at = aligned(across.nbytes)
        pixels = aligned(down_at + down.nbytes)
        scratch = aligned(pixels + images.size)
        between = 3 * max(height * self._size[1], self._size[0] * width)  # of one image, resized in one direction
        layout = _Layout(height, width, across_width, down_width, down_at, pixels, scratch, scratch + between)
        self._buffers.reserve(layout.scratch, layout.size, f"resizing an image of {height}×{width}")
        pinned = self._buffers.pinned
        pinned[: across.nbytes].view(np.int32)[:] = across
        pinned[down_at : down_at + down.nbytes].view(np.int32)[:] = down
        pinned[pixels : pixels + images.size].reshape(images.shape)[...] = images
        self._layout = layout

    def enqueue_upload(self, stream: int) -> None:
        """Queue the copy to the device."""
        source = address(self._buffers.pinned)
        self._device.copy(self._buffers.device_address, source, self.uploaded_bytes, stream)

    def enqueue(self, out: int, stream: int) -> None:
        """Queue the resizing, to [B, h, w, 3] uint8 of the bundle's size at `out`."""
        source, uploaded, (height, width) = self._written, self._buffers.device_address, self._size
        for number in range(self._batch):
            self._kernels.resize(
                uploaded + source.pixels + number * source.height * source.width * 3,
                source.height,
                source.width,
                out + number * height * width * 3,
                height,
                width,
                uploaded,
                source.across_width,
                uploaded + source.down,
                source.down_width,
                uploaded + source.scratch,
                stream,
            )

    @property
    def _written(self) -> _Layout:
        assert self._layout is not None, "nothing was written yet"
        return self._layout


class ResizedLabels:
    """The labels of one pass at a time, at the size of its images."""

    def __init__(self, device: Device, kernels: Launchers, element: str, logits: int, shape: Sequence[int]) -> None:
        """`logits`: where those of a pass lie, [B, C, h', w'] of type `element`."""
        self._device, self._kernels = device, kernels
        self._logits = element, logits
        self._batch, self._classes, self._height, self._width = shape
        self._dtype = label_dtype(self._classes)
        self._size = (0, 0)
        self._buffers = StagingBuffers(device)

    @property
    def device_bytes(self) -> int:
        """Bytes held on the device, none before the first image of another size."""
        return self._buffers.device_bytes

    @property
    def bytes(self) -> int:
        """Of the labels of one pass over images of the size that was prepared last."""
        return self._batch * self._size[0] * self._size[1] * self._dtype.itemsize

    def prepare(self, size: tuple[int, int]) -> None:
        """For images of this height and width. Raises DovitError where their labels do not fit into memory."""
        self._size = size
        self._buffers.reserve(self.bytes, self.bytes, f"labelling an image of {size[0]}×{size[1]}")

    def enqueue(self, stream: int) -> None:
        """Queue the kernel."""
        element, logits = self._logits
        self._kernels.resized_labels(
            element,
            logits,
            self._buffers.device_address,
            self._batch,
            self._classes,
            self._height,
            self._width,
            *self._size,
            stream,
        )

    def enqueue_download(self, stream: int) -> None:
        """Queue the copy back."""
        self._device.copy(address(self._buffers.pinned), self._buffers.device_address, self.bytes, stream)

    def read(self) -> np.ndarray:
        """[B, H, W], uint8 or, with more than 256 classes, int16, once the stream has got there."""
        return self._buffers.pinned[: self.bytes].view(self._dtype).reshape(self._batch, *self._size).copy()
