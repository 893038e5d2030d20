"""Activation functions, and the convolution that decoders and heads are made of."""

from __future__ import annotations

from typing import assert_never

from torch import nn

from dovit.export.model.config import Activation, ConvConfig


def activation(config: Activation) -> nn.Module:
    """The module of an activation function."""
    match config.kind:
        case "gelu":
            return nn.GELU()
        case "gelu_tanh":
            return nn.GELU(approximate="tanh")
        case "silu":
            return nn.SiLU()
        case "relu":
            return nn.ReLU()
        case "leaky_relu":
            return nn.LeakyReLU(config.slope)
        case "none":
            return nn.Identity()
        case _:
            assert_never(config.kind)


def conv_module(inputs: int, outputs: int, kernel: int, config: ConvConfig, dilation: int = 1) -> nn.Sequential:
    """mmsegmentation's ConvModule: convolution, batch norm where there is one (the convolution then has no bias), and
    activation: [B, inputs, h, w] → [B, outputs, h, w]."""
    padding = kernel // 2 * dilation
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=not config.batch_norm)
    norm = [nn.BatchNorm2d(outputs, config.bn_eps)] if config.batch_norm else []
    return nn.Sequential(conv, *norm, activation(config.activation))
