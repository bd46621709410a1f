"""What a predictor reads of a multi-resolution network beside its raw code."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nni_aiop.search_spaces.multi_resolution._codes import CHANNEL_LABELS, LABELS, values_of
from nni_aiop.search_spaces.multi_resolution._costs import unit_costs, unit_table

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["features"]


@lru_cache(maxsize=1)
def _groups() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(units, 14) 0/1: the units of the stem, each (stage, branch), the stem's rest and the output.

    (units, 14) positions of each unit for an input of 128 x 128 relative to 1/4 of its side.
    """
    units = unit_table()
    keys = sorted({(unit.stage, unit.level if 0 < unit.stage < 5 else 0) for unit in units})
    member = np.zeros((len(units), len(keys)))
    for row, unit in enumerate(units):
        member[row, keys.index((unit.stage, unit.level if 0 < unit.stage < 5 else 0))] = 1.0
    area = np.array([4.0 ** (1 - unit.level) for unit in units])
    return member, member * area[:, None]


def _index(*labels: str) -> list[int]:
    return [LABELS.index(label) for label in labels]


def _branches(kind: str, stage: int) -> list[int]:
    """Columns of n or c of a stage's branches, the highest resolution first."""
    return [i for i, label in enumerate(LABELS) if label.split("_")[0] == f"{kind}{stage}"]


_STAGES = tuple(range(1, 5))
_BLOCKS = _index(*(f"b{stage}" for stage in _STAGES))
_UNITS = [_branches("n", stage) for stage in _STAGES]
_WIDTHS = [_branches("c", stage) for stage in _STAGES]

_BOTTLENECKS = (
    _index("i1", "i2"),
    _index("i1", "i2", "c1"),
    *([row[branch] for row in _WIDTHS[branch:]] for branch in range(3)),
    *_WIDTHS[1:],
)
"""Channels that data pass one after the other (stem, branches), or side by side in a stage."""


def _totals(values: Tensor) -> Tensor:
    """(n, 28) logarithms of what (stage, branch) cells add up to, from numbers (n, 27).

    Convolutions of the parallel modules' residual units by stage and by branch, residual units by
    stage, by branch and in all, channels side by side by stage, and a soft minimum of the channels
    of `_BOTTLENECKS` (the root of the harmonic mean of squares).
    """
    import torch

    depth = [
        [values[:, block] * values[:, unit] for unit in units]
        for block, units in zip(_BLOCKS, _UNITS, strict=True)
    ]
    size = [
        [d * values[:, width].square() for d, width in zip(row, widths, strict=True)]
        for row, widths in zip(depth, _WIDTHS, strict=True)
    ]
    by_stage = [sum(cell / 4**branch for branch, cell in enumerate(row)) for row in size]
    by_branch = [sum(row[branch] for row in size[branch:]) for branch in range(4)]
    deep_stage = [sum(row) for row in depth]
    deep_branch = [sum(row[branch] for row in depth[branch:]) for branch in range(4)]
    side_by_side = [values[:, widths].sum(1) for widths in _WIDTHS[1:]]
    narrow = [values[:, columns].pow(-2).mean(1).rsqrt() for columns in _BOTTLENECKS]
    sums = [*by_stage, *by_branch, *deep_stage, *deep_branch, sum(deep_stage)]
    return torch.log(torch.stack([*map(torch.as_tensor, sums), *side_by_side, *narrow], dim=1))


def features(codes: Tensor) -> Tensor:
    """Features of codes for predictors: (n, 27) in [0, 1] -> (n, f), differentiable.

    Logarithms of the channels, numbers of blocks and residual units, logarithms of the residual
    units a branch has in all (b n), logarithms of the parameters and FLOPs of each
    (stage, branch) and of the whole network, and `_totals`.
    """
    import torch

    values = values_of(codes)
    columns = [LABELS.index(label) for label in CHANNEL_LABELS]
    depths = [index for index in range(len(LABELS)) if index not in columns]
    pairs = [
        (LABELS.index(f"b{label[1]}"), index)
        for index, label in enumerate(LABELS)
        if label[0] == "n"
    ]
    units, _ = unit_costs(values)
    sums, weighted = (torch.as_tensor(g, dtype=codes.dtype, device=codes.device) for g in _groups())
    params, flops = units @ sums, units @ weighted
    blocks = values[:, [pair[0] for pair in pairs]] * values[:, [pair[1] for pair in pairs]]
    return torch.cat(
        [
            torch.log(values[:, columns] / 32),
            (values[:, depths] - 2.5) / 1.5,
            torch.log(blocks),
            torch.log(params),
            torch.log(flops),
            torch.log(params.sum(1, keepdim=True)),
            torch.log(flops.sum(1, keepdim=True)),
            _totals(values),
        ],
        dim=1,
    )
