"""Layers that the networks of several spaces are made of."""

from __future__ import annotations

from torch import nn

__all__ = ["ReLUConvNorm"]


class ReLUConvNorm(nn.Sequential):
    """ReLU, a convolution without bias, batch normalisation."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(c_out),
        )
