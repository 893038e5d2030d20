"""What the manifest says about a bundle whose products are computed in int8 or fp8."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dovit.runtime.bundle.frozen import Frozen

QuantizedName = Literal["int8", "fp8"]


class LeftOut(Frozen):
    """A product that stays in floating point, and what its quantization alone changes."""

    product: str
    cost: float = Field(
        description="error of its step's outputs where it alone is quantized: RMS difference over RMS value"
    )


class Quantization(Frozen):
    """How the products of a bundle were quantized, and what that costs, measured against the float32 files."""

    calibrated: int = Field(description="images that the ranges of activations were taken from")
    products: dict[str, int] = Field(description="how many products of each step are quantized")
    left: tuple[LeftOut, ...] = Field(description="products that stay in floating point so that the bounds hold")
    measured: int = Field(description="images that the following was measured on")
    held_out: bool = Field(description="whether those are other images than the calibration's")
    errors: dict[str, float] = Field(
        description="of each step, fed with what float32 feeds it: RMS difference of its outputs over their RMS value"
    )
    label_agreement: float = Field(description="share of equal labels at the bundle's ξ")
    same_fate: float = Field(description="share of the tokens that stop at the same decision, or at none")
    miou: tuple[float, float] | None = Field(
        default=None, description="float32's and this one's, in percent, where the images have labels"
    )
