"""The numbers of a model's configuration with their bounds: far above any published segmenter, and low enough that what a
file may ask for is refused before it takes time or memory. A bundle has limits of the same kind (dovit.runtime.bundle.check)."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from dovit.runtime.bundle.check import MAX_CLASSES, MAX_PIXELS
from dovit.runtime.errors import printable

MAX_TOKENS = 1 << 17  # 4096×8192 pixels in patches of 16
MAX_LOGITS = 1 << 31  # of one image
MAX_LAYERS = 256
MAX_TAPS = 16  # layers whose outputs a decoder reads
MAX_PREFIX = 1024  # tokens before the patches, as in a bundle


def _odd(kernel: int) -> int:
    if kernel % 2 == 0:
        raise ValueError("an even kernel would change the map's size")
    return kernel


def _one_line(name: str) -> str:
    if printable(name) != name:
        raise ValueError(f"the name {printable(name)} has control characters")
    return name


Side = Annotated[int, Field(ge=1, le=MAX_PIXELS)]  # of an image
Patch = Annotated[int, Field(ge=1, le=256)]
Width = Annotated[int, Field(ge=1, le=1 << 15)]  # channels, attention heads
Layer = Annotated[int, Field(ge=1, le=MAX_LAYERS)]  # a layer's number from 1, or how many there are
Epsilon = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Slope = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
Scale = Annotated[int, Field(ge=1, le=32)]  # of one upsampling
Convolutions = Annotated[int, Field(ge=0, le=16)]
Kernel = Annotated[int, Field(ge=1, le=7), AfterValidator(_odd)]
Dilation = Annotated[int, Field(ge=1, le=64)]
CellSide = Annotated[int, Field(ge=0, le=1024)]  # in patches; 0: no cells
Classes = Annotated[int, Field(ge=2, le=MAX_CLASSES)]
Period = Annotated[float, Field(gt=1e-6, lt=1e9, allow_inf_nan=False)]  # of rotary positions
Threshold = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Mean = Annotated[float, Field(allow_inf_nan=False)]
Deviation = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Byte = Annotated[int, Field(ge=0, le=255)]
ClassName = Annotated[str, Field(max_length=200), AfterValidator(_one_line)]
