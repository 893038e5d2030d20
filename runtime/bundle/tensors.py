"""Tensors between the steps: names, types and shapes, some of whose sizes only an image decides."""

from __future__ import annotations

from typing import Literal

import numpy as np

from dovit.runtime.bundle.frozen import Frozen
from dovit.runtime.errors import DovitError

DType = Literal["uint8", "int16", "int32", "int64", "float16", "bfloat16", "float32"]


class TensorSpec(Frozen):
    """A tensor that enters or leaves a step. A dimension is a number or one of these names: `batch`; `kept3`, the
    tokens kept by decision 3; `length3`, the same with the prefix tokens; `capacities`, any number of them."""

    name: str
    dtype: DType
    shape: tuple[int | str, ...]

    def resolve(self, dims: dict[str, int]) -> tuple[int, ...]:
        """The shape with its names replaced. Raises DovitError where a dimension is not known yet."""
        try:
            return tuple(d if isinstance(d, int) else dims[d] for d in self.shape)
        except KeyError:
            raise DovitError(
                f"tensor {self.name} is needed before its size is known; export the bundle again"
            ) from None

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return itemsize(self.dtype)


def itemsize(dtype: DType) -> int:
    """Bytes of one element."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize  # numpy has no bfloat16
