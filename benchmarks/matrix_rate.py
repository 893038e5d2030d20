"""Measures a GPU's peak matrix rate: the product of two large matrices with cuBLAS."""

from __future__ import annotations

import statistics
import time

import torch

from dovit.benchmarks.torch_plans import ELEMENTS
from dovit.runtime.bundle.plans import Precision

SIZE, PRODUCTS, WARM_UP, ROUNDS = 8192, 10, 2, 7


def matrix_tflop_per_s(precision: Precision, device: str = "cuda:0", size: int = SIZE) -> float:
    """Of [size, size] by [size, size] in `precision`, a multiplication and an addition counted as two; a median."""
    element = getattr(torch, ELEMENTS[precision])
    a, b = (torch.randn(size, size, device=device).to(element) for _ in range(2))
    out = torch.empty_like(a)
    seconds = []
    for _ in range(WARM_UP + ROUNDS):
        start = time.perf_counter()
        for _ in range(PRODUCTS):
            torch.matmul(a, b, out=out)
        if out.is_cuda:
            torch.cuda.synchronize(out.device)
        seconds.append((time.perf_counter() - start) / PRODUCTS)
    return 2 * size**3 / statistics.median(seconds[WARM_UP:]) / 1e12
