"""The backbone's configuration."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from dovit.export.model.config.bounds import MAX_PREFIX, Epsilon, Layer, Patch, Period, Width
from dovit.export.model.config.parts import Activation, Part

# embed_dim, layers, attention heads, as timm, DeiT and mmsegmentation name them; heads are always 64 wide
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"embed_dim": 192, "depth": 12, "heads": 3},
    "small": {"embed_dim": 384, "depth": 12, "heads": 6},
    "base": {"embed_dim": 768, "depth": 12, "heads": 12},
    "large": {"embed_dim": 1024, "depth": 24, "heads": 16},
}


class BackboneConfig(Part):
    """A plain pre-norm ViT. `prefix` tokens (class, distillation, registers) precede the patch tokens; 0 where there is
    none. The first of them is the class token, into which stopped tokens are merged.

    Learned positions are added to the embedded patches. With `rotary`, the periods of each head's channels, there are none:
    queries and keys of the patches are turned in every layer instead (DINOv3, see rotary.py). `gated`: the MLP is
    act(gate(x)) · up(x), each `mlp_dim` wide (SwiGLU, with SiLU).

    LayerNorms beside those of the layers: `patch_norm` on the embedded patches, before positions are added; `pre_norm`
    before the first layer; `final_norm` after the last. `norm_eps` is that of all of them.
    """

    embed_dim: Width
    depth: Layer
    heads: Width
    mlp_dim: Width
    patch: Patch = 16
    prefix: int = Field(default=1, ge=0, le=MAX_PREFIX)
    norm_eps: Epsilon = 1e-6
    patch_norm: bool = False
    pre_norm: bool = False
    final_norm: bool = False
    activation: Activation = Activation(kind="gelu")
    gated: bool = False
    rotary: tuple[Period, ...] | None = Field(default=None, max_length=1 << 13)

    @classmethod
    def of_size(cls, size: str, **changes: Any) -> BackboneConfig:
        """The backbone of a known size, `tiny`, `small`, `base` or `large`, with `changes` on top."""
        known = SIZES[size]
        return cls(**{**known, "mlp_dim": 4 * known["embed_dim"], **changes})

    @model_validator(mode="after")
    def _heads_divide(self) -> BackboneConfig:
        if self.embed_dim % self.heads:
            raise ValueError(f"{self.heads} attention heads do not divide {self.embed_dim} channels")
        if self.rotary is not None and 4 * len(self.rotary) != self.head_dim:
            raise ValueError(
                f"{len(self.rotary)} rotary periods for heads of {self.head_dim} channels, which need a quarter"
            )
        return self

    @property
    def head_dim(self) -> int:
        """Channels of an attention head."""
        return self.embed_dim // self.heads
