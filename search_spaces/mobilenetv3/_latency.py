"""Latency of once-for-all networks as the sum of measured blocks, read from look-up tables.

Two publishers' tables are read: of once-for-all itself (a phone, network of width 1.2, a row for
each resolution and block) and of a desktop processor (a row for each block of either width). A
block of either is named by the shapes that it maps, its expansion and its kernel.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nni_aiop.benchmarks._csv import column, numbers, read_csv
from nni_aiop.errors import FileFormatError
from nni_aiop.search_spaces.mobilenetv3._codes import (
    EXPANSIONS,
    KERNELS,
    Resolution,
    choices_of,
    sizes_of,
)
from nni_aiop.search_spaces.mobilenetv3._skeleton import UNITS, skeleton

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LatencyTable", "load_latency_table"]

_BLOCK = re.compile(
    r"(MBConv|expanded_conv)-input:(\d{1,9})x\2x(\d{1,9})-output:(\d{1,9})x\4x(\d{1,9})"
    r"-expand:(\d{1,9})-kernel:(\d{1,9})-.*"
)
_PHONE = (
    "Conv-input:{side}x{side}x3-output:{half}x{half}x{stem}",
    "Conv_1-input:{last}x{last}x{out}-output:{last}x{last}x{expand}",
    "AvgPool2D-input:{last}x{last}x{expand}-output:1x1x{expand}",
    "Conv_2-input:1x1x{expand}-output:1x1x{mix}",
    "Logits-input:1x1x{mix}-output:1000",
)
_DESKTOP = (
    "first_conv-input:{side}x{side}x3-output:{half}x{half}x{stem}",
    "final_expand_layer-input:{last}x{last}x{out}-output:{last}x{last}x{expand}",
    "feature_mix_layer-input:1x1x{expand}-output:1x1x{mix}",
    "classifier-input:{mix}-output:1000",
)

_Block = tuple[int, int, int, int, int, int]
"""Side and channels that come in, side and channels that go out, expansion, kernel."""


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """Latency of a network as a function of its code: the sum of its blocks.

    Calling it with codes (n, width of the code space) returns (n,) milliseconds; exact at the codes
    of samples and linear between the choices of each dimension.

    Attributes:
        width: Width multiplier of the networks.
        resolution: That of the code space whose codes it reads.
        fixed: (s,) milliseconds of stem and head at each of the s resolutions.
        blocks: (s, 5, 2, 3, 3) milliseconds of a block: by resolution, unit, whether it is a later
            one of its unit, kernel and expansion.
    """

    width: float
    resolution: Resolution
    fixed: NDArray[np.float64]
    blocks: NDArray[np.float64]

    def __call__(self, codes: Tensor) -> Tensor:
        import torch

        choices = choices_of(codes, self.resolution)
        kernel = _between(choices.kernel, KERNELS)
        expand = _between(choices.expand, EXPANSIONS)
        side = _between(choices.side[:, 0], sizes_of(self.resolution))
        # Each unit's first block, then three of its later ones.
        blocks = codes.new_tensor(self.blocks)[:, :, [0, 1, 1, 1]]
        of_block = torch.einsum("ns,nurk,nure,surke->nur", side, kernel, expand, blocks)
        return (choices.gate * of_block).sum((1, 2)) + side @ codes.new_tensor(self.fixed)


def load_latency_table(
    path: str | os.PathLike[str], *, width: float = 1.2, resolution: Resolution = 224
) -> LatencyTable:
    """The latency of networks from a look-up table of blocks.

    Args:
        path: A CSV file, gzipped or not, with the columns `key` and `mean_ms`, and `resolution`
            where blocks were measured inside networks of several.
        width: Width multiplier, 1.0 or 1.2.
        resolution: That of the code space; the table must have every block at each.

    Raises:
        FileFormatError: The file is damaged, or lacks a block of that width and resolution.
        OSError: There is no such file.
        ValueError: The width or the resolution is wrong.

    Example:
        >>> table = load_latency_table("lut_note10_w1.2.csv.gz")  # doctest: +SKIP
        >>> code_space(width=1.2, latency={"latency_ms": table})  # doctest: +SKIP
    """
    file = Path(path)
    table = read_csv(file)
    keys, means = column(file, table, "key"), numbers(file, table, "mean_ms")
    sides = numbers(file, table, "resolution") if "resolution" in table else np.zeros(len(keys))
    read: dict[float, dict[str | _Block, float]] = {}
    for side, key, mean in zip(sides.tolist(), keys, means.tolist(), strict=True):
        name = _named(file, key)
        known = read.setdefault(side, {})
        if known.get(name, mean) != mean:
            raise FileFormatError(f"{file} must have each block once, but has {key} again.")
        known[name] = mean
    sizes = sizes_of(resolution)
    fixed, blocks = [], []
    for size in sizes:
        rows = read.get(float(size) if "resolution" in table else 0.0, {})
        desktop = any(str(name).startswith("first_conv") for name in rows)
        outside, inside = _network(size, width, desktop, partial(_row, file, rows, size))
        fixed.append(outside)
        blocks.append(inside)
    return LatencyTable(width, resolution, np.array(fixed), np.array(blocks))


def _named(file: Path, key: str) -> str | _Block:
    """What a key stands for: the same block has one name in both publishers' notations."""
    match = _BLOCK.fullmatch(key)
    if match is None:
        return key
    side, c_in, after, c_out, expand, kernel = map(int, match.groups()[1:])
    if match[1] == "expanded_conv":  # here channels, in the other table their ratio
        if c_in == 0 or expand % c_in:
            raise FileFormatError(f"{file} must have whole expansions, but has {key}.")
        expand //= c_in
    return side, c_in, after, c_out, expand, kernel


def _row(
    file: Path, rows: Mapping[str | _Block, float], resolution: int, name: str | _Block
) -> float:
    if name not in rows:
        raise FileFormatError(
            f"{file} must have every block of resolution {resolution}, but lacks {name}."
        )
    return rows[name]


def _network(
    size: int, width: float, desktop: bool, row: Callable[[str | _Block], float]
) -> tuple[float, NDArray[np.float64]]:
    """Milliseconds of what every network has, and (5, 2, 3, 3) of each block."""
    channels = skeleton(width)
    side = half = (size + 1) // 2
    fixed = row((side, channels.stem, side, channels.stem, 1, 3))
    blocks = np.empty((len(UNITS), 2, len(KERNELS), len(EXPANSIONS)))
    for u, (unit, c_in, c_out) in enumerate(
        zip(UNITS, channels.inputs, channels.units, strict=True)
    ):
        after = (side + unit.stride - 1) // unit.stride
        for i, kernel in enumerate(KERNELS):
            for j, expand in enumerate(EXPANSIONS):
                blocks[u, 0, i, j] = row((side, c_in, after, c_out, expand, kernel))
                blocks[u, 1, i, j] = row((after, c_out, after, c_out, expand, kernel))
        side = after
    shapes = {
        "side": size,
        "half": half,
        "stem": channels.stem,
        "last": side,
        "out": channels.units[-1],
        "expand": channels.expand,
        "mix": channels.mix,
    }
    parts = _DESKTOP if desktop else _PHONE
    return fixed + sum(row(text.format(**shapes)) for text in parts), blocks


def _between(values: Tensor, choices: tuple[int, ...]) -> Tensor:
    """(..., c) weights of the choices: 1 at a choice, linear between its neighbours."""
    import torch

    grid = values.new_tensor(choices)
    # 0 at the choice before, 1 at the one after; none where there is one choice only.
    rise = ((values.unsqueeze(-1) - grid[:-1]) / grid.diff()).clamp(0.0, 1.0)
    end = torch.zeros_like(values).unsqueeze(-1)
    return torch.cat([1 - end, rise], dim=-1) - torch.cat([rise, end], dim=-1)
