"""Exact costs of what the networks of both spaces share: the stem and the heads.

FLOPs are multiply-adds of convolutions and linear layers for one sample (nine tiles in the jigsaw);
biases, normalisation and sums are free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_aiop.search_spaces.transnas101._body import BASE
from nni_aiop.search_spaces.transnas101._tasks import Task, decoder_layers

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["convolution", "head_flops", "head_params", "stem_flops", "stem_params"]

_HALVINGS = (1, 2, 3, 4)


def convolution(kernel: int, c_in: int, c_out: int) -> int:
    """Parameters of a convolution without bias and its normalisation."""
    return kernel**2 * c_in * c_out + 2 * c_out


def stem_params() -> int:
    """Parameters of the stem."""
    return convolution(3, 3, BASE // 2) + convolution(3, BASE // 2, BASE)


def stem_flops(image_size: int) -> int:
    """FLOPs of the stem on one image."""
    first = 9 * 3 * (BASE // 2) * (image_size // 2) ** 2
    return first + 9 * (BASE // 2) * BASE * (image_size // 4) ** 2


def head_params(task: Task, channels: Tensor) -> Tensor:
    """(n,) parameters of the head on bodies that end in (n,) channels."""
    if task.head == "linear":
        return (channels * task.n_pieces + 1) * task.n_outputs
    first, *rest = [layer.channels for layer in decoder_layers(task, _HALVINGS[0])]
    total = 9 * channels * first + 3 * first
    before = first
    for width in rest:
        total = total + 9 * before * width + 3 * width
        before = width
    return total - 2 * before  # the last has no normalisation


def head_flops(task: Task, channels: Tensor, halvings: Tensor) -> Tensor:
    """(n,) FLOPs of the head.

    Args:
        task: The head's task.
        channels: (n,) channels of the body's output.
        halvings: (n,) how often the body's modules halve the image; between whole numbers the cost
            is interpolated.
    """
    if task.head == "linear":
        return channels * (task.n_pieces * task.n_outputs)
    halvings = halvings.clamp(_HALVINGS[0], _HALVINGS[-1])
    total = channels * 0
    for number in _HALVINGS:
        share = (1 - (halvings - number).abs()).clamp(min=0)
        area = (task.image_size >> (number + 2)) ** 2
        first, *rest = decoder_layers(task, number)
        cost = 9 * channels * first.channels * area
        before = first.channels
        for layer in rest:
            # A transposed convolution uses each weight once per position of its input.
            cost = cost + 9 * before * layer.channels * area
            area *= 4 if layer.doubles else 1
            before = layer.channels
        total = total + share * cost
    return total
