"""Exact parameters and FLOPs of NAS-Bench-101 networks.

FLOPs are multiply-adds of the convolutions and the classifier; normalisation, pooling, sums and
biases are free. A code need not be one of a valid cell: what does not lie between input and output
is pruned, as the publisher does it. A relaxed code is counted by the same formulas, with the
probabilistic "or" where an edge or a path may be there, and a gradient that ignores rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from nni_aiop.search_spaces.nasbench101._cells import (
    EDGES,
    N_VERTICES,
    OPERATIONS,
    OUTPUT,
    dimensions,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CELLS_PER_STACK", "IMAGE_SIZE", "N_CLASSES", "STEM", "WIDTHS", "flops", "params"]

Codes = TypeVar("Codes", bound=Any)
"""An array or a tensor: what goes in comes out."""

IMAGE_SIZE = 32
"""Side of CIFAR-10's images in pixels."""

N_CLASSES = 10

STEM = 128
"""Channels of the first convolution."""

WIDTHS = (128, 256, 512)
"""Channels of the three stacks."""

CELLS_PER_STACK = 3

_CODE_WIDTH = 2 * len(EDGES) + len(OPERATIONS) * (N_VERTICES - 2)


def params(codes: Codes) -> Codes:
    """Number of parameters of each code's network.

    Args:
        codes: (n, 57) codes of the space, an array or a tensor.

    Returns:
        (n,) parameters, as floats.

    Raises:
        ValueError: The shape is wrong.
    """
    skeleton = 27 * STEM + 2 * STEM + (WIDTHS[-1] + 1) * N_CLASSES
    return _count(codes, skeleton, (1, 1, 1), per_channel=2)


def flops(codes: Codes) -> Codes:
    """FLOPs (multiply-adds) of each code's network on one 32x32 image.

    Args:
        codes: (n, 57) codes of the space, an array or a tensor.

    Returns:
        (n,) FLOPs, as floats.

    Raises:
        ValueError: The shape is wrong.
    """
    areas = tuple((IMAGE_SIZE >> stack) ** 2 for stack in range(len(WIDTHS)))
    skeleton = 27 * STEM * areas[0] + WIDTHS[-1] * N_CLASSES
    return _count(codes, skeleton, areas, per_channel=0)


def _count(codes: Codes, skeleton: int, positions: tuple[int, ...], *, per_channel: int) -> Codes:
    """The cost of the skeleton and of every stack's cells.

    Args:
        codes: (n, 57) codes.
        skeleton: What every network costs.
        positions: How often each stack uses a weight.
        per_channel: Cost of normalising a channel, at each position.
    """
    if codes.ndim != 2 or codes.shape[1] != _CODE_WIDTH:
        raise ValueError(
            f"codes must have the shape (n, {_CODE_WIDTH}), but got {tuple(codes.shape)}."
        )
    if isinstance(codes, np.ndarray):
        import torch

        counted = _count(torch.as_tensor(codes), skeleton, positions, per_channel=per_channel)
        return cast(Codes, counted.numpy())
    edges = _counting_edges(codes)
    conv3, conv1, _ = codes[:, 2 * len(EDGES) :].reshape(len(codes), -1, len(OPERATIONS)).unbind(2)
    total = codes.new_full((len(codes),), float(skeleton))
    before = STEM
    for width, times in zip(WIDTHS, positions, strict=True):
        channels = _channels(edges, width)
        for c_in in (before, *[width] * (CELLS_PER_STACK - 1)):
            cost = edges[0, OUTPUT] * (c_in + per_channel) * width
            for vertex, c in channels.items():
                three, one = conv3[:, vertex - 1], conv1[:, vertex - 1]
                cost = cost + edges[0, vertex] * (c_in + per_channel) * c
                cost = cost + three * (9 * c + per_channel) * c + one * (c + per_channel) * c
            total = total + times * cost
        before = width
    return cast(Codes, total)


def _counting_edges(codes: Tensor) -> dict[tuple[int, int], Tensor]:
    """(n,) whether each edge is there and lies between input and output."""
    values = [list(dimension.values) for dimension in dimensions()]
    present = {}
    for place, (source, target) in enumerate(EDGES):
        present[source, target] = codes[:, 2 * place + values[place].index(1)]

    ones = codes.new_ones(len(codes))
    reached, leading = {0: ones}, {OUTPUT: ones}
    for vertex in range(1, N_VERTICES):
        reached[vertex] = _any(
            present[source, vertex] * reached[source] for source in range(vertex)
        )
    for vertex in range(OUTPUT - 1, -1, -1):
        leading[vertex] = _any(
            present[vertex, target] * leading[target] for target in range(vertex + 1, N_VERTICES)
        )
    return {(i, j): there * reached[i] * leading[j] for (i, j), there in present.items()}


def _any(chances: Iterable[Tensor]) -> Tensor:
    none: Tensor | float = 1.0
    for chance in chances:
        none = none * (1 - chance)
    return cast("Tensor", 1 - none)


def _channels(edges: Mapping[tuple[int, int], Tensor], width: int) -> dict[int, Tensor]:
    """(n,) channels of each inner vertex of cells with `width` channels; 0 if it does not count.

    The output's channels are divided among the vertices that it concatenates, the first ones
    taking what is left over; another vertex has the most of those that it leads to.
    """
    inner = range(1, OUTPUT)
    joined = [edges[vertex, OUTPUT] for vertex in inner]
    n_joined = sum(joined[1:], joined[0]).clamp(min=1)
    share, left = width / n_joined, width % n_joined.detach().round()
    places = [place.detach().round() for place in accumulate(joined)]
    channels: dict[int, Tensor] = {}
    for vertex in reversed(inner):
        there = joined[vertex - 1]
        exact = (width - left) / n_joined.detach().round() + (places[vertex - 1] <= left)
        own = share + (exact - share).detach()
        largest = own * 0
        for target in range(vertex + 1, OUTPUT):
            largest = largest.maximum(edges[vertex, target] * channels[target])
        channels[vertex] = there * own + (1 - there) * largest
    return channels
