"""The digits networks: from a sample of the space to a PyTorch module.

A network reads (batch, 1, 8, 8) images and returns (batch, 10) logits::

    stem       3x3 convolution to width_1 channels                    8 x 8
    stage 1    depth_1 blocks (0 to 2) of op_1_i and kernel_1_i       8 x 8
    transition pooling, then a 1x1 convolution to width_2 channels    4 x 4
               (or one 2x2 convolution of stride 2, which does both)
    stage 2    depth_2 blocks (0 to 2) of op_2_i and kernel_2_i       4 x 4
    head       average over the positions, linear layer to 10 classes

Every convolution is without bias and followed by batch normalisation; blocks keep width and
resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nni_aiop.errors import SpaceError
from nni_aiop.search_spaces.digits._costs import (
    CLASSES,
    EXPANSION,
    KERNEL_OF_STEM,
    MAX_DEPTH,
    rules,
)

__all__ = ["DigitsNetwork", "build"]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "hardswish": nn.Hardswish,
    "tanh": nn.Tanh,
}


def _convolution(
    channels_in: int,
    channels_out: int,
    kernel: int,
    activation: str | None,
    *,
    stride: int = 1,
    depthwise: bool = False,
) -> nn.Sequential:
    """Convolution, batch normalisation and, where named, an activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(
            channels_in,
            channels_out,
            kernel,
            stride=stride,
            padding=(kernel - 1) // 2,
            groups=channels_in if depthwise else 1,
            bias=False,
        ),
        nn.BatchNorm2d(channels_out),
    ]
    if activation is not None:
        layers.append(_ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


class _Residual(nn.Module):
    """`x + body(x)`."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


def _block(op: str, width: int, kernel: int, activation: str) -> nn.Module:
    """One block from `width` to `width` channels, of the kind `op`."""
    if op == "conv":
        return _convolution(width, width, kernel, activation)
    if op == "separable":
        return nn.Sequential(
            _convolution(width, width, kernel, activation, depthwise=True),
            _convolution(width, width, 1, activation),
        )
    if op == "residual":
        return _Residual(
            nn.Sequential(
                _convolution(width, width, kernel, activation),
                _convolution(width, width, kernel, activation),
            )
        )
    inner = EXPANSION * width
    return _Residual(
        nn.Sequential(
            _convolution(width, inner, 1, activation),
            _convolution(inner, inner, kernel, activation, depthwise=True),
            _convolution(inner, width, 1, None),
        )
    )


def _transition(kind: str, width_in: int, width_out: int, activation: str) -> nn.Module:
    """From 8 x 8 positions and `width_in` channels to 4 x 4 and `width_out`."""
    if kind == "stride":
        return _convolution(width_in, width_out, 2, activation, stride=2)
    pooling = nn.MaxPool2d(2) if kind == "max" else nn.AvgPool2d(2)
    return nn.Sequential(pooling, _convolution(width_in, width_out, 1, activation))


class DigitsNetwork(nn.Module):
    """The network of one sample; see the module's text for its parts.

    Args:
        sample: Values of the active labels; inactive ones may be there and are not read.
    """

    def __init__(self, sample: Mapping[str, Any]) -> None:
        super().__init__()
        activation = sample["activation"]
        width_1, width_2 = sample["width_1"], sample["width_2"]

        def stage(number: int, width: int) -> nn.Sequential:
            return nn.Sequential(
                *(
                    _block(
                        sample[f"op_{number}_{i}"],
                        width,
                        sample[f"kernel_{number}_{i}"],
                        activation,
                    )
                    for i in range(1, MAX_DEPTH + 1)
                    if i <= sample[f"depth_{number}"]
                )
            )

        self.stem = _convolution(1, width_1, KERNEL_OF_STEM, activation)
        self.stage_1 = stage(1, width_1)
        self.transition = _transition(sample["pooling"], width_1, width_2, activation)
        self.stage_2 = stage(2, width_2)
        self.head = nn.Linear(width_2, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, 10) of images (batch, 1, 8, 8)."""
        x = self.stage_2(self.transition(self.stage_1(self.stem(images))))
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def build(sample: Mapping[str, Any], *, seed: int | None = None) -> DigitsNetwork:
    """The network of `sample`, on the CPU.

    Args:
        sample: A sample of the space, inactive labels present or not.
        seed: Weights are drawn from a generator of their own with this seed, so that PyTorch's
            global one is neither read nor moved (and threads do not disturb each other);
            None draws them as PyTorch does, from the global one.

    Raises:
        SpaceError: The sample breaks a rule of the space.
    """
    broken = rules().violation(sample)
    if broken is not None:
        raise SpaceError(broken)
    if seed is None:
        return DigitsNetwork(sample)
    with torch.device("meta"):
        network = DigitsNetwork(sample)
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=generator)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    return network
