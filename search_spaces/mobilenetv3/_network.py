"""The once-for-all MobileNetV3 networks (Cai et al., ICLR 2020) as plain PyTorch modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from nni_aiop.search_spaces.mobilenetv3._codes import blocks_of
from nni_aiop.search_spaces.mobilenetv3._skeleton import (
    UNITS,
    Activation,
    se_channels,
    skeleton,
)

__all__ = ["MobileNetV3Net"]

_ACTIVATIONS = {"relu": nn.ReLU, "hardswish": nn.Hardswish}


class ConvNorm(nn.Sequential):
    """A convolution without bias, normalised, activated unless None."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: Activation | None,
    ) -> None:
        super().__init__(
            nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(c_out),
        )
        if activation is not None:
            self.append(_ACTIVATIONS[activation]())


class SqueezeExcitation(nn.Module):
    """Weighs each channel by what all channels are on average (Hu et al., 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = se_channels(channels)
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        weighed: Tensor = x * self.weigh(x)
        return weighed


class InvertedResidual(nn.Module):
    """Widen, filter each channel, weigh (with `se`), narrow; a shortcut where shapes allow.

    An expansion of 1 leaves the widening out.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        kernel: int,
        expand: int,
        stride: int,
        se: bool,
        activation: Activation,
    ) -> None:
        super().__init__()
        mid = c_in * expand
        self.body = nn.Sequential()
        if expand > 1:
            self.body.append(ConvNorm(c_in, mid, activation=activation))
        self.body.append(
            ConvNorm(mid, mid, kernel, stride=stride, groups=mid, activation=activation)
        )
        if se:
            self.body.append(SqueezeExcitation(mid))
        self.body.append(ConvNorm(mid, c_out, activation=None))
        self.shortcut = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.shortcut else y


class MobileNetV3Net(nn.Module):
    """A network of the space: (B, 3, H, W) images of any size -> (B, n_classes) logits.

    Args:
        sample: The choices by label; those of inactive positions, and `r`, are not read.
        width: Width multiplier, 1.0 or 1.2.
        n_classes: Number of classes.

    Raises:
        SpaceError: An active label is missing, or its value is none of the space's.
        ValueError: The width is wrong.

    Example:
        >>> import torch
        >>> from nni_aiop.search_spaces.mobilenetv3 import LABELS
        >>> small = {label: {"d": 2, "k": 3, "e": 3}[label[0]] for label in LABELS}
        >>> MobileNetV3Net(small, n_classes=10)(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self, sample: Mapping[str, Any], *, width: float = 1.0, n_classes: int = 1000
    ) -> None:
        super().__init__()
        channels = skeleton(width)
        self.stem = nn.Sequential(
            ConvNorm(3, channels.stem, 3, stride=2, activation="hardswish"),
            InvertedResidual(
                channels.stem,
                channels.stem,
                kernel=3,
                expand=1,
                stride=1,
                se=False,
                activation="relu",
            ),
        )
        self.units = nn.Sequential()
        for unit, c_in, c_out, blocks in zip(
            UNITS, channels.inputs, channels.units, blocks_of(sample), strict=True
        ):
            self.units.append(
                nn.Sequential(
                    *(
                        InvertedResidual(
                            c_out if rank else c_in,
                            c_out,
                            kernel=kernel,
                            expand=expand,
                            stride=1 if rank else unit.stride,
                            se=unit.se,
                            activation=unit.activation,
                        )
                        for rank, (kernel, expand) in enumerate(blocks)
                    )
                )
            )
        self.head = nn.Sequential(
            ConvNorm(channels.units[-1], channels.expand, activation="hardswish"),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels.expand, channels.mix, 1, bias=False),
            nn.Hardswish(),
            nn.Flatten(),
            nn.Linear(channels.mix, n_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.units(self.stem(x)))
        return scores
