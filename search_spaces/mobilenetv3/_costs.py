"""Exact parameters and MACs of the once-for-all networks, as functions of codes.

Notation: a block widens c_in channels to mid = expand * c_in, filters them with a kernel, weighs
them by squeeze-and-excitation with h hidden channels where its unit has it, and narrows them to
c_out. MACs are multiply-adds of convolutions and the classifier; biases, normalisation,
activations, pooling, products and sums are free.

Everything is exact at the codes of samples and differentiable between: kernels and expansions
enter as real numbers, h by the parabola through its three values, blocks by a gate that follows
the depth; the steps of a size that does not halve evenly have the slope of one that does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_aiop.search_spaces.mobilenetv3._codes import (
    EXPANSIONS,
    MAX_DEPTH,
    Choices,
    Resolution,
    choices_of,
)
from nni_aiop.search_spaces.mobilenetv3._skeleton import UNITS, se_channels, skeleton

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["macs", "params", "unit_costs"]

_HALVINGS = 5


def params(
    codes: Tensor, *, width: float = 1.0, resolution: Resolution = 224, n_classes: int = 1000
) -> Tensor:
    """Number of parameters of each code's network.

    Args:
        codes: (n, 45) codes, or (n, 46) where there are several resolutions; float64 is exact.
        width: Width multiplier, 1.0 or 1.2.
        resolution: That of the code space; it has no effect on the count.
        n_classes: Outputs of the classifier.

    Returns:
        (n,) parameters, as floats.

    Raises:
        ValueError: The shape, the width or the resolution is wrong.
    """
    units, _ = unit_costs(choices_of(codes, resolution), width=width)
    channels = skeleton(width)
    stem = 27 * channels.stem + 9 * channels.stem + channels.stem**2 + 6 * channels.stem
    head = (channels.units[-1] + 2) * channels.expand + channels.expand * channels.mix
    return units.sum(1) + float(stem + head + (channels.mix + 1) * n_classes)


def macs(
    codes: Tensor, *, width: float = 1.0, resolution: Resolution = 224, n_classes: int = 1000
) -> Tensor:
    """Multiply-adds of each code's network on one image.

    The MAdds that PNAG publishes leave the classifier out: rounded to millions they are these with
    `n_classes=0`, plus one addition for each bias of squeeze-and-excitation (below 0.02 million).

    Args:
        codes: (n, 45) codes, or (n, 46) where there are several resolutions; float64 is exact.
        width: Width multiplier, 1.0 or 1.2.
        resolution: Side of the square image in pixels; where several, the first column chooses.
        n_classes: Outputs of the classifier.

    Returns:
        (n,) MACs, as floats.

    Raises:
        ValueError: The shape, the width or the resolution is wrong.
    """
    choices = choices_of(codes, resolution)
    _, units = unit_costs(choices, width=width)
    channels = skeleton(width)
    areas = _areas(choices.side)
    stem = 27 * channels.stem + 9 * channels.stem + channels.stem**2
    outside = stem * areas[:, 1] + channels.units[-1] * channels.expand * areas[:, _HALVINGS]
    return units.sum(1) + outside + float((channels.expand + n_classes) * channels.mix)


def unit_costs(choices: Choices, *, width: float) -> tuple[Tensor, Tensor]:
    """(n, 5) parameters and (n, 5) MACs of each unit.

    Raises:
        ValueError: The width is wrong.
    """
    channels = skeleton(width)
    new = choices.expand.new_tensor
    c_out = new(channels.units)[:, None]
    c_in = c_out.repeat(1, MAX_DEPTH)
    c_in[:, 0] = new(channels.inputs)
    se = new([unit.se for unit in UNITS])[:, None]

    mid = c_in * choices.expand
    h = se * _hidden(choices.expand, c_in)
    depthwise = choices.kernel.square() * mid
    weights = c_in * mid + depthwise + mid * c_out + 2 * mid * h
    others = se * (mid + h) + 2 * (2 * mid + c_out)  # biases, normalisation
    of_params = (choices.gate * (weights + others)).sum(2)

    levels = [1]
    for unit in UNITS:
        levels.append(levels[-1] + unit.stride // 2)
    areas = _areas(choices.side)
    after = areas[:, levels[1:], None]
    before = after.repeat(1, 1, MAX_DEPTH)
    before[:, :, 0] = areas[:, levels[:-1]]
    work = c_in * mid * before + (depthwise + mid * c_out) * after + 2 * mid * h
    return of_params, (choices.gate * work).sum(2)


def _hidden(expand: Tensor, c_in: Tensor) -> Tensor:
    """(n, 5, 4) hidden channels of squeeze-and-excitation, by Newton's interpolation."""
    first, second, third = EXPANSIONS
    at = [
        c_in.new_tensor([[se_channels(int(c) * e) for c in row] for row in c_in.tolist()])
        for e in EXPANSIONS
    ]
    slope = (at[1] - at[0]) / (second - first)
    bend = ((at[2] - at[1]) / (third - second) - slope) / (third - first)
    return at[0] + (expand - first) * (slope + (expand - second) * bend)


def _areas(side: Tensor) -> Tensor:
    """(n, 6) positions after 0 to 5 halvings, each rounded up, of sides (n, 1)."""
    import torch

    halved = side * side.new_tensor([0.5**k for k in range(_HALVINGS + 1)])
    with torch.no_grad():
        # A side may be a whole number but for the rounding of its code.
        steps = torch.ceil(halved - 1e-4) - halved
    return (halved + steps).square()
