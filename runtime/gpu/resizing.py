"""Images of another size than the bundle's: uploaded as they are, and resized on the device as Pillow does it, to the bit.

What a pass needs lies in one piece of pinned memory and again on the device, so one copy takes it there: the weights across,
those down, the pixels. On the device scratch memory comes after them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dovit.runtime.gpu.addresses import address
from dovit.runtime.gpu.device import Device, Launchers
from dovit.runtime.gpu.growing import Growing
from dovit.runtime.gpu.memory import align

TABLES = 64  # of weights that are kept, on the host: one a width or height
MOST_ROWS = 65535  # of an image: the kernel's grid has a block for each


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


class Resizing:
    """For the images of one pass at a time."""

    def __init__(self, device: Device, kernels: Launchers, size: tuple[int, int], batch: int) -> None:
        """`size`: the bundle's, height and width."""
        self._device, self._kernels, self._size, self._batch = device, kernels, size, batch
        self._taps = lru_cache(TABLES)(kernels.resize_taps)
        self._memory = Growing(device)
        self._layout: _Layout | None = None

    @property
    def device_bytes(self) -> int:
        """Bytes held on the device, none before the first image of another size."""
        return self._memory.held

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
        down_at = align(across.nbytes)
        pixels = align(down_at + down.nbytes)
        scratch = align(pixels + images.size)
        between = 3 * max(height * self._size[1], self._size[0] * width)  # of one image, resized in one direction
        layout = _Layout(height, width, across_width, down_width, down_at, pixels, scratch, scratch + between)
        self._memory.reserve(layout.scratch, layout.size, f"resizing an image of {height}×{width}")
        pinned = self._memory.pinned
        pinned[: across.nbytes].view(np.int32)[:] = across
        pinned[down_at : down_at + down.nbytes].view(np.int32)[:] = down
        pinned[pixels : pixels + images.size].reshape(images.shape)[...] = images
        self._layout = layout

    def enqueue_upload(self, stream: int) -> None:
        """Queue the copy to the device."""
        self._device.copy(self._memory.place, address(self._memory.pinned), self.uploaded_bytes, stream)

    def enqueue(self, out: int, stream: int) -> None:
        """Queue the resizing, to [B, h, w, 3] uint8 of the bundle's size at `out`."""
        source, place, (height, width) = self._written, self._memory.place, self._size
        for number in range(self._batch):
            self._kernels.resize(
                place + source.pixels + number * source.height * source.width * 3,
                source.height,
                source.width,
                out + number * height * width * 3,
                height,
                width,
                place,
                source.across_width,
                place + source.down,
                source.down_width,
                place + source.scratch,
                stream,
            )

    @property
    def _written(self) -> _Layout:
        assert self._layout is not None, "nothing was written yet"
        return self._layout
