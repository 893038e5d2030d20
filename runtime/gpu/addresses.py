"""Objects as the plain integers that kernels and the CUDA driver take."""

from __future__ import annotations

import numpy as np

from dovit.runtime.gpu.device import Condition, Stream


def address(array: np.ndarray) -> int:
    """Where a host array begins."""
    return int(array.ctypes.data)


def stream_address(stream: Stream) -> int:
    """A stream's CUstream, which has __int__."""
    return int(stream.handle)  # type: ignore[call-overload]


def condition_handle(condition: Condition) -> int:
    """A condition's CUgraphConditionalHandle, which has __int__."""
    return int(condition.handle)  # type: ignore[call-overload]
