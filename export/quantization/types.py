"""The types that products are quantized to: symmetric, with zero point 0, which TensorRT asks for."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from dovit.runtime.bundle.quantization import QuantizedName


@dataclass(frozen=True)
class QuantizedType:
    """A type, and its largest value, which the largest absolute value of a tensor becomes."""

    name: QuantizedName
    dtype: np.dtype
    largest: float

    def quantize(self, values: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
        """`values` / `scale`, rounded and saturated, in this type. `scale` is broadcast over the last dimension."""
        scaled = np.asarray(values, np.float32) / np.asarray(scale, np.float32)
        if self.name == "int8":
            return np.clip(np.rint(scaled), -128, 127).astype(self.dtype)  # to even, as QuantizeLinear rounds
        return np.clip(scaled, -self.largest, self.largest).astype(self.dtype)  # E4M3 has no infinity to saturate to

    def dequantize(self, quantized: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
        """The float32 values that quantized ones stand for."""
        return quantized.astype(np.float32) * np.asarray(scale, np.float32)


TYPES: dict[QuantizedName, QuantizedType] = {
    "int8": QuantizedType("int8", np.dtype(np.int8), 127.0),
    "fp8": QuantizedType("fp8", np.dtype(ml_dtypes.float8_e4m3fn), 448.0),
}
