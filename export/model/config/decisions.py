"""The configuration of decisions: heads, and what goes with them."""

from __future__ import annotations

from pydantic import Field, model_validator

from dovit.export.model.config.bounds import Epsilon, Kernel, Layer
from dovit.export.model.config.parts import FcnConfig, Part


def paper_decision_layers(depth: int) -> tuple[int, ...]:
    """The paper's decision layers, counted from 1: (3, 6, 9) of 12, (6, 12, 18) of 24; quarters of any other depth."""
    return tuple(sorted({depth * k // 4 for k in (1, 2, 3)} - {0, depth}))


class _TokenwiseConfig(Part):
    """A map of single tokens, x → A x + b with an E×E matrix and a bias; with `hidden` channels
    x → A x + b + W₂ gelu(W₁ x + b₁)."""

    hidden: int = Field(default=0, ge=0, le=1 << 15)


class CorrectionConfig(_TokenwiseConfig):
    """The `correction` of a decision, a map of single tokens."""


class LensConfig(_TokenwiseConfig):
    """The `lens` of a decision, a map of single tokens, and with a `kernel` larger than 1 a map that also sees the patches around
    a token, in so many rows and columns: z = A x + b of each token, u = LayerNorm(z), then z + W₂ gelu(W₁ (u + D u) + b₁),
    where D is a depthwise convolution over the grid of patches. Where a patch has stopped before, z is what the decoder reads
    of it."""

    # left out of files where it is 1, so that they stay readable for versions without it
    kernel: Kernel = Field(default=1, exclude_if=lambda kernel: kernel == 1)

    @model_validator(mode="after")
    def _kernel_has_channels(self) -> LensConfig:
        if self.kernel > 1 and not self.hidden:
            raise ValueError(f"a lens of kernel {self.kernel} needs `hidden` channels, and has 0")
        return self


class HeadConfig(FcnConfig):
    """A decision head after layer `layer` (from 1): [LayerNorm] → num_convs × (conv, BN, ReLU) → [concat] → 1×1 conv.

    The paper's head is `num_convs=0`: a single 1×1 convolution. SETR's auxiliary heads have a norm and 1 or 2
    convolutions of kernel 1 or 3; FCN heads have none to two, and may convolve their input and output together.
    `lens`: what stopping tokens pass through on their way to the decoder; the head reads what it makes of a token.
    `correction`: what the patch tokens that stay pass through at the end of the next block, so that they are as they would have
    been in attention to all tokens; x + r (C x - x), where r is the share of all N tokens that has stopped.
    """

    layer: Layer
    norm: bool = False
    norm_eps: Epsilon = 1e-6
    # left out of files where there is none, so that they stay readable for versions that know no lens
    lens: LensConfig | None = Field(default=None, exclude_if=lambda lens: lens is None)
    correction: CorrectionConfig | None = Field(default=None, exclude_if=lambda correction: correction is None)

    @property
    def on_map(self) -> bool:
        """Whether the head looks at a token's neighbours and so needs the reconstructed map."""
        return self.kernel > 1 and (self.num_convs > 0 or self.concat)


class RefinementConfig(Part):
    """The `refinement` of the full sequence, which sees `kernel` rows and columns of patches around a token:
    x + W₂ gelu(W₁ (u + D u) + b₁), where u = LayerNorm(x) and D is a depthwise convolution over the grid of patches."""

    hidden: int = Field(ge=1, le=1 << 15)
    kernel: Kernel
