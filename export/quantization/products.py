"""Scales, weights and biases of one quantized product y = x·W + b.

Activations have one scale, from the largest absolute value that was seen; weights have one for each output. Before that:

- A LayerNorm's outputs differ in size from channel to channel. Each channel c is divided by s_c in the norm's own weight and
  bias, and its row of W is multiplied by s_c, which changes nothing in floating point (SmoothQuant, arXiv 2211.10438).
- A GELU's outputs reach from -0.17 to some large value: they are shifted to the middle of their range, and b gets what that
  takes away. Both halves of int8 are used then, with zero point 0.
- b gets the mean of the error that remains, over the tokens that were seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from dovit.export.quantization.ranges import Ranges
from dovit.export.quantization.types import QuantizedType

SMOOTHING = 0.5  # SmoothQuant's α: how much of a channel's size moves from the activations into the weights
MAX_SMOOTHING = 1e3
SMALLEST = 1e-12  # so that a column of zeros has a scale


@dataclass(frozen=True)
class QuantizedProduct:
    """The quantized form of a product."""

    weight: np.ndarray  # [C, O], quantized
    weight_scale: np.ndarray  # [O] float32
    input_scale: float
    correction: np.ndarray  # [O] float32, to be added to the bias
    smoothing: np.ndarray | None  # [C] float32: the norm before divides by it
    shift: float  # subtracted from the input before it is quantized


def quantize_product(node: gs.Node, ranges: Ranges, kind: QuantizedType) -> QuantizedProduct:
    """`node`, a MatMul by a constant [C, O], with what is known of its input."""
    weight = np.asarray(node.inputs[1].values, np.float32)  # [C, O]
    sample = ranges.sample  # [R, C]
    smoothing = None
    if norm_before(node) is not None:
        smoothing = _smoothing(ranges.magnitude, weight)
        weight, sample = weight * smoothing[:, None], sample / smoothing
        least, largest = float((ranges.least / smoothing).min()), float((ranges.largest / smoothing).max())
    else:
        least, largest = float(ranges.least.min()), float(ranges.largest.max())
    # a floating-point type has its finest steps at zero: nothing is to be moved away from there
    shift = (least + largest) / 2 if kind.name == "int8" and _producer(node) == "Gelu" else 0.0
    input_scale = float(np.float32(max(abs(least - shift), abs(largest - shift), SMALLEST) / kind.largest))
    weight_scale = np.maximum(np.abs(weight).max(axis=0), SMALLEST).astype(np.float32) / np.float32(kind.largest)  # [O]
    quantized = kind.quantize(weight, weight_scale)
    restored = kind.dequantize(quantized, weight_scale)
    seen = kind.dequantize(kind.quantize(sample - np.float32(shift), input_scale), input_scale)
    error = sample.mean(axis=0, dtype=np.float64) @ weight - seen.mean(axis=0, dtype=np.float64) @ restored
    return QuantizedProduct(quantized, weight_scale, input_scale, error.astype(np.float32), smoothing, shift)


def norm_before(node: gs.Node) -> gs.Node | None:
    """The LayerNorm that makes the input of `node` and of nothing else."""
    source = node.inputs[0]
    if _producer(node) != "LayerNormalization" or len(source.outputs) != 1:
        return None
    norm = source.inputs[0]
    constant = all(isinstance(t, gs.Constant) for t in norm.inputs[1:])
    return norm if constant and len(norm.inputs) == 3 else None


def _producer(node: gs.Node) -> str | None:
    made_by = node.inputs[0].inputs
    return str(made_by[0].op) if made_by else None


def _smoothing(magnitude: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """[C]: max|x_c|^α / max|W_c|^(1-α), relative to the geometric mean of all channels."""
    x, w = np.maximum(magnitude, 1e-5), np.maximum(np.abs(weight).max(axis=1), 1e-5)
    raw = x**SMOOTHING / w ** (1 - SMOOTHING)
    relative = raw / np.exp(np.log(raw).mean())
    return np.asarray(np.clip(relative, 1 / MAX_SMOOTHING, MAX_SMOOTHING), np.float32)
