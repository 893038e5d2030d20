"""What the parts of a configuration have in common, and those that several of them hold."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from dovit.export.model.config.bounds import Convolutions, Dilation, Epsilon, Kernel, Slope, Width


class Part(BaseModel):
    """A part of a configuration: immutable, without unknown fields, and with values of the types that it names. A number in
    quotes, or a 1 for `true`, is refused rather than taken for what it may have meant. JSON and YAML write tuples as lists."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _with_tuples(cls, content: Any) -> Any:
        return {key: _as_tuple(value) for key, value in content.items()} if isinstance(content, dict) else content


def _as_tuple(value: Any, depth: int = 2) -> Any:
    """Lists within lists as well, as of a palette; nothing is nested more deeply than that."""
    return tuple(_as_tuple(one, depth - 1) for one in value) if isinstance(value, list) and depth else value


class Activation(Part):
    """An activation function; `slope` is LeakyReLU's for negative values."""

    kind: Literal["gelu", "gelu_tanh", "silu", "relu", "leaky_relu", "none"]
    slope: Slope = 0.01


class ConvConfig(Part):
    """What follows every convolution of a decoder or head: batch norm, where there is one, and an activation."""

    batch_norm: bool = True
    bn_eps: Epsilon = 1e-5
    activation: Activation = Activation(kind="relu")


class FcnConfig(Part):
    """num_convs × (conv of `kernel` and `dilation`, BN, ReLU) → [concat with the input, conv] → 1×1 conv."""

    num_convs: Convolutions = 0
    kernel: Kernel = 1
    channels: Width = 256
    concat: bool = False
    dilation: Dilation = 1
    conv: ConvConfig = ConvConfig()
