"""Memory that is taken beside a program's arena: pinned on the host, and on the device."""

from __future__ import annotations

import numpy as np

from dovit.runtime.bundle.program import ALIGNMENT
from dovit.runtime.errors import DovitError
from dovit.runtime.gpu.device import Device, address


class StagingBuffers:
    """Pinned memory (`pinned`, uint8) and `device_bytes` at `device_address`, which grow with the largest image so far; none of
    either at first. They never grow while a pass is under way or a graph is captured."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.pinned = np.empty(0, np.uint8)
        self.device_address, self.device_bytes = 0, 0

    def reserve(self, pinned: int, on_device: int, what: str) -> None:
        """Have at least so many bytes; what was in them is lost. Raises DovitError where the device has too few for `what`."""
        if len(self.pinned) < pinned:
            old, self.pinned = self.pinned, np.empty(0, np.uint8)
            if len(old):
                self._device.release(address(old))
            self.pinned = self._device.pinned(pinned)
        if self.device_bytes < on_device:
            if self.device_bytes:
                self._device.release(self.device_address)
            self.device_bytes = 0
            free = self._device.free_bytes
            if on_device > free:
                raise DovitError(
                    f"{what} needs {on_device / 2**20:,.0f} MiB on {self._device.name}, of which {free / 2**20:,.0f} MiB are "
                    "free: give a smaller image, or use mode slide"
                )
            self.device_address, self.device_bytes = self._device.allocate(on_device), on_device


def aligned(size: int) -> int:
    """The next multiple of what addresses on the device are aligned to."""
    return -(-size // ALIGNMENT) * ALIGNMENT
