"""Pinned memory and memory on the device that grow with the largest image so far, never while a pass is under way or a graph is
recorded."""

from __future__ import annotations

import numpy as np

from dovit.runtime.errors import DovitError
from dovit.runtime.gpu.addresses import address
from dovit.runtime.gpu.device import Device


class Growing:
    """`pinned` on the host, uint8, and `held` bytes at `place` on the device; none of either at first."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.pinned = np.empty(0, np.uint8)
        self.place, self.held = 0, 0

    def reserve(self, pinned: int, held: int, what: str) -> None:
        """Have at least so many bytes; what was in them is lost. Raises DovitError where the device has too few for `what`."""
        if len(self.pinned) < pinned:
            old, self.pinned = self.pinned, np.empty(0, np.uint8)
            if len(old):
                self._device.release(address(old))
            self.pinned = self._device.pinned(pinned)
        if self.held < held:
            if self.held:
                self._device.release(self.place)
            self.held = 0
            free = self._device.free_bytes
            if held > free:
                raise DovitError(
                    f"{what} needs {held / 2**20:,.0f} MiB on {self._device.name}, of which {free / 2**20:,.0f} MiB are free: "
                    "give a smaller image, or use mode slide"
                )
            self.place, self.held = self._device.allocate(held), held
