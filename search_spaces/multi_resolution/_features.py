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


def features(codes: Tensor) -> Tensor:
    """Features of codes for predictors: (n, 27) in [0, 1] -> (n, f), differentiable.

    Logarithms of the channels, numbers of blocks and residual units, logarithms of the residual
    units a branch has in all (b n), and logarithms of the parameters and FLOPs of each
    (stage, branch) and of the whole network.
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
        ],
        dim=1,
    )
