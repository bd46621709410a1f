"""Exact costs and scheme features of NAAP-440's networks, as functions of the code.

Where a code lies between two values, layer 4 counts by the fraction of the depth and resolutions
halve by the fraction of the stride.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nni_aiop.search_spaces.naap._schemes import LABELS

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "CLASSES",
    "IMAGE_SIZE",
    "SCHEME_COLUMNS",
    "features",
    "flops",
    "num_macs",
    "params",
    "scheme",
]

IMAGE_SIZE = 32
"""Side of CIFAR-10's images in pixels."""

CLASSES = 10

SCHEME_COLUMNS = (
    "NumParams",
    "NumMACs",
    "NumLayers",
    "NumStages",
    "FirstLayerWidth",
    "LastLayerWidth",
)
"""The six scheme features, in the words and the order of the published table."""


class _Conv(NamedTuple):
    there: Tensor  # (n,) 1, or the fraction of layer 4
    weights: Tensor
    width: Tensor
    positions: Tensor


class _Network(NamedTuple):
    convolutions: list[_Conv]
    depth: Tensor  # (n,) of these all
    stages: Tensor
    last_width: Tensor
    last_positions: Tensor


def _read(codes: Tensor) -> _Network:
    """The networks of codes (n, 11)."""
    code = dict(zip(LABELS, codes.unbind(1), strict=True))
    widths = [
        12 + 4 * code["width_1"],
        16 + 8 * code["width_2"],
        16 + 16 * code["width_3"],
        32 + 8 * code["width_4"],
    ]
    windows: list[Any] = [9, 9, (1 + 2 * code["kernel_3"]) ** 2, (1 + 2 * code["kernel_4"]) ** 2]
    deep = code["n_layers"]
    always = 1 + 0 * deep
    halves_3 = code["stride_3"]
    halves_4 = code["stride_4"] * (1 - halves_3)
    sides = [IMAGE_SIZE / 2 * always, IMAGE_SIZE / 4 * always]
    sides.append(sides[-1] / 2**halves_3)
    sides.append(sides[-1] / 2**halves_4)
    convolutions = [
        _Conv(there, window * before * width, width, side**2)
        for there, window, before, width, side in zip(
            [always, always, always, deep], windows, [3, *widths[:3]], widths, sides, strict=True
        )
    ]
    third, fourth = convolutions[2:]
    return _Network(
        convolutions,
        depth=3 + deep,
        stages=2 + halves_3 + deep * halves_4,
        last_width=third.width + deep * (fourth.width - third.width),
        last_positions=third.positions + deep * (fourth.positions - third.positions),
    )


def params(codes: Tensor) -> Tensor:
    """(n,) parameters of codes (n, 11): weights, two per normalised channel, the classifier."""
    net = _read(codes)
    total = (net.last_width + 1) * CLASSES
    for conv in net.convolutions:
        total = total + conv.there * (conv.weights + 2 * conv.width)
    return total


def flops(codes: Tensor) -> Tensor:
    """(n,) multiply-adds of codes (n, 11): convolutions and the classifier on one image."""
    net = _read(codes)
    total = net.last_width * CLASSES
    for conv in net.convolutions:
        total = total + conv.there * conv.weights * conv.positions
    return total


def num_macs(codes: Tensor) -> Tensor:
    """(n,) MACs as the publisher counts: normalisation costs 4 an entry, pooling 1 and a division.

    `flops` + sum of 4·width·positions of every convolution + (positions + 1)·width of the last.
    """
    net = _read(codes)
    total = flops(codes) + (net.last_positions + 1) * net.last_width
    for conv in net.convolutions:
        total = total + conv.there * 4 * conv.width * conv.positions
    return total


def scheme(codes: Tensor) -> Tensor:
    """(n, 6) the `SCHEME_COLUMNS` of codes (n, 11), as the table has them."""
    import torch

    net = _read(codes)
    first = net.convolutions[0].width
    columns = [params(codes), num_macs(codes), net.depth, net.stages, first, net.last_width]
    return torch.stack(columns, dim=1)


def features(codes: Tensor) -> Tensor:
    """(n, 6) the scheme features of codes (n, 11), counts as logarithms, scaled to about [0, 1]."""
    import torch

    columns = scheme(codes)
    counts = columns[:, :2].clamp(min=1.0).log()
    # The space spans 2.6e3 to 2.7e4 parameters and 2.3e5 to 1.6e6 MACs.
    center = columns.new_tensor([7.8, 12.3, 3.0, 2.0, 12.0, 16.0])
    spread = columns.new_tensor([2.4, 2.0, 1.0, 1.0, 4.0, 24.0])
    return (torch.cat([counts, columns[:, 2:]], dim=1) - center) / spread
