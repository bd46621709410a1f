"""What a predictor reads of a NAS-Bench-201 cell beside its one-hot code."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nni_aiop.search_spaces.nasbench201._cells import EDGES, LABELS, OPERATIONS

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["features"]

_PATHS: tuple[tuple[int, ...], ...] = tuple(
    tuple(EDGES.index(edge) for edge in path)
    for path in (((0, 3),), ((0, 1), (1, 3)), ((0, 2), (2, 3)), ((0, 1), (1, 2), (2, 3)))
)
"""The four ways from the cell's input to its output, as indices of edges."""

_COMPUTING = ("avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")
_PASSING = ("skip_connect", *_COMPUTING)
_SEQUENCES = tuple(
    sequence for length in range(4) for sequence in product(_COMPUTING, repeat=length)
)
"""The 40 things a path can do: up to three computing operations in order."""


@lru_cache(maxsize=3)
def _meaning(length: int) -> NDArray[np.float64]:
    """What each choice of operations along a path of `length` edges does: (4^length, 48) 0/1.

    The columns are the 40 sequences; then at least 0, 1, 2, 3 convolutions; then at least 0, 1,
    2, 3 convolutions of 3x3.
    """
    rows = []
    for choice in product(_PASSING, repeat=length):
        does = tuple(operation for operation in choice if operation in _COMPUTING)
        convs = sum(operation.startswith("nor_conv") for operation in does)
        wide = does.count("nor_conv_3x3")
        rows.append(
            [float(does == sequence) for sequence in _SEQUENCES]
            + [float(convs >= depth) for depth in range(4)]
            + [float(wide >= depth) for depth in range(4)]
        )
    return np.array(rows)


def _either(a: Tensor, b: Tensor) -> Tensor:
    return a + b - a * b


def features(codes: Tensor) -> Tensor:
    """Features of codes for predictors: (n, 30) in [0, 1] -> (n, 46), differentiable.

    Isomorphic cells have equal features (see `canonical_string`), but for the use of shared
    weights. They are, in this order:

    - 40: log(1 + number of paths from input to output that do this), for every sequence of up
      to three computing operations; a skip connection does nothing, a zeroised edge ends a path;
    - 4: number of live edges (on some such path) with skip, pool, 1x1 and 3x3 convolution;
    - 2: convolutions, and 3x3 convolutions, on the path that has most of them, plus one; 0
      where no path is left.

    A relaxed code counts as the product of its edges' weights along a path, and as a
    probabilistic "or" over paths.
    """
    import torch

    n = len(codes)
    edges = codes.reshape(n, len(LABELS), len(OPERATIONS))
    passing = edges[:, :, [OPERATIONS.index(operation) for operation in _PASSING]]

    paths = codes.new_zeros(n, len(_SEQUENCES))
    shallower = codes.new_ones(n, 8)
    for path in _PATHS:
        weight = passing[:, path[0]]
        for edge in path[1:]:
            weight = (weight[:, :, None] * passing[:, edge][:, None, :]).reshape(n, -1)
        meaning = torch.as_tensor(_meaning(len(path)), dtype=codes.dtype, device=codes.device)
        does = weight @ meaning
        paths = paths + does[:, : len(_SEQUENCES)]
        shallower = shallower * (1 - does[:, len(_SEQUENCES) :])
    depth = (1 - shallower).reshape(n, 2, 4).sum(2)

    a01, a02, a12, _, a13, a23 = passing.sum(2).unbind(1)
    on_path = [
        _either(a13, a12 * a23),
        a23,
        a01 * a23,
        torch.ones_like(a01),
        a01,
        _either(a02, a01 * a12),
    ]
    live = (passing * torch.stack(on_path, dim=1)[:, :, None]).sum(1)
    return torch.cat([torch.log1p(paths), live, depth], dim=1)
