"""The kernels' launchers from Python: addresses of device memory, sizes and a stream, all plain integers.

`plugins/kernels/launch.h` says what each of them reads and writes.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from dovit.plugins import load
from dovit.runtime.errors import DovitError

TYPES = {"float32": 0, "float16": 1, "bfloat16": 2}  # as launch.h numbers them

_ADDRESS, _INT, _HANDLE = ctypes.c_void_p, ctypes.c_int, ctypes.c_ulonglong
_LAUNCHERS: dict[str, str] = {  # a letter an argument: address, integer, handle
    "confidence": "iaaiiia",
    "decide": "aaaiiiaaaaha",
    "gather": "iaaaaaaaaaaaiiiiiiaa",
    "labels": "iaaiiiiia",
    "normalise": "iaaiiiaaa",
    "reconstruct": "iaaaiiiiia",
    "resize": "aiiaiiaiaiaa",
    "resized_labels": "iaaiiiiiia",
    "slots": "aiiiaa",
}


class Kernels:
    """The launchers of the plugin library. None waits; each raises DovitError where CUDA refuses the launch.

    `element` is float32, float16 or bfloat16. The last argument of each is the address of a CUDA stream.
    """

    def __init__(self, library: ctypes.CDLL | None = None) -> None:
        """`library`: default the installed one. Raises DovitError where there is none."""
        self._library = library or load()
        kinds = {"a": _ADDRESS, "i": _INT, "h": _HANDLE}
        for name, arguments in _LAUNCHERS.items():
            function = getattr(self._library, f"dovit_{name}")
            function.argtypes, function.restype = [kinds[kind] for kind in arguments], _INT
        self._library.dovit_gather_scratch_bytes.restype = ctypes.c_size_t
        self._library.dovit_error_string.restype = ctypes.c_char_p

    def confidence(
        self, element: str, logits: int, confidence: int, batch: int, classes: int, count: int, stream: int
    ) -> None:
        """The largest class probability of each token."""
        self._launch("confidence", TYPES[element], logits, confidence, batch, classes, count, stream)

    def decide(
        self, confidence: int, threshold: int, capacities: int, capacity_count: int, batch: int, count: int, staying: int,
        keep: int, slots: int, capacity: int, switch: int, stream: int,
    ) -> None:  # fmt: skip
        """Which tokens stay; `switch`: a conditional handle that is set to the number of the chosen capacity, or 0."""
        self._launch(
            "decide", confidence, threshold, capacities, capacity_count, batch, count, staying, keep, slots, capacity,
            switch, stream,
        )  # fmt: skip

    def slots(self, keep: int, batch: int, count: int, capacity: int, slots: int, stream: int) -> None:
        """The slots of a list of kept tokens."""
        self._launch("slots", keep, batch, count, capacity, slots, stream)

    def gather_scratch_bytes(self, batch: int, count: int, channels: int) -> int:
        """Bytes of scratch memory that `gather` needs."""
        return int(self._library.dovit_gather_scratch_bytes(batch, count, channels))

    def gather(
        self, element: str, tokens: int, index: int, slots: int, kept: int, kept_index: int, full: int, sum_before: int,
        sum_after: int, stopped_before: int, stopped_after: int, actual_count: int, batch: int, count: int, capacity: int,
        prefix: int, positions: int, channels: int, scratch: int, stream: int,
    ) -> None:  # fmt: skip
        """Kept tokens compacted, the others to the full sequence and into the class token."""
        self._launch(
            "gather", TYPES[element], tokens, index, slots, kept, kept_index, full, sum_before, sum_after, stopped_before,
            stopped_after, actual_count, batch, count, capacity, prefix, positions, channels, scratch, stream,
        )  # fmt: skip

    def reconstruct(
        self, element: str, tokens: int, index: int, full: int, batch: int, count: int, prefix: int, positions: int,
        channels: int, stream: int,
    ) -> None:  # fmt: skip
        """Kept tokens back at their positions."""
        self._launch(
            "reconstruct", TYPES[element], tokens, index, full, batch, count, prefix, positions, channels, stream
        )

    def labels(
        self, element: str, logits: int, labels: int, batch: int, classes: int, height: int, width: int, scale: int, stream: int
    ) -> None:  # fmt: skip
        """The class of each pixel, from logits that are `scale` times smaller."""
        self._launch("labels", TYPES[element], logits, labels, batch, classes, height, width, scale, stream)

    def resized_labels(
        self, element: str, logits: int, labels: int, batch: int, classes: int, height: int, width: int, out_height: int,
        out_width: int, stream: int,
    ) -> None:  # fmt: skip
        """The class of each pixel of an image of any size, from logits of any other."""
        self._launch(
            "resized_labels", TYPES[element], logits, labels, batch, classes, height, width, out_height, out_width, stream,
        )  # fmt: skip

    def normalise(
        self, element: str, images: int, out: int, batch: int, height: int, width: int, mean: np.ndarray,
        deviation: np.ndarray, stream: int,
    ) -> None:  # fmt: skip
        """Pixels to the model's input; `mean` and `deviation` [3] float32 lie on the host."""
        host = [np.ascontiguousarray(values, np.float32) for values in (mean, deviation)]
        addresses = [values.ctypes.data for values in host]
        self._launch("normalise", TYPES[element], images, out, batch, height, width, *addresses, stream)

    def resize(
        self, image: int, height: int, width: int, out: int, out_height: int, out_width: int, across: int, across_width: int,
        down: int, down_width: int, scratch: int, stream: int,
    ) -> None:  # fmt: skip
        """An image in another size; `across` and `down` are the tables of `resize_taps` on the device."""
        self._launch(
            "resize", image, height, width, out, out_height, out_width, across, across_width, down, down_width, scratch,
            stream,
        )  # fmt: skip

    def resize_taps(self, source: int, target: int) -> tuple[np.ndarray, int]:
        """(table int32, weights a pixel) of one direction of `resize`."""
        width = ctypes.c_int()
        count = self._library.dovit_resize_taps(source, target, None, ctypes.byref(width))
        table = np.empty(count, np.int32)
        self._library.dovit_resize_taps(source, target, table.ctypes.data_as(_ADDRESS), ctypes.byref(width))
        return table, width.value

    def _launch(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, f"dovit_{name}")(*arguments)
        if status:
            reason = self._library.dovit_error_string(status).decode()
            raise DovitError(f"the kernel {name} could not be launched: {reason}")
