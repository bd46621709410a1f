"""TransNAS-Bench-101 (Duan et al., CVPR 2021) from tables in CSV (gzip), one for each space.

Each row is an architecture in NASLib's code, and its validation metric at the final epoch on some
of the seven Taskonomy tasks: top-1 accuracy of class_scene, class_object and jigsaw and mean IoU of
segmentsemantic in percent, SSIM of autoencoder and normal, the negative loss of room_layout. More
is better in each.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nni_aiop.benchmarks._csv import column, numbers, read_csv
from nni_aiop.errors import FileFormatError

__all__ = ["MICRO_OPERATIONS", "TASKS", "TransNASBench101", "load_transnas_bench_101"]

MICRO_OPERATIONS = ("none", "skip_connect", "conv_1x1", "conv_3x3")
"""Meaning of the codes 0 to 3 of the micro space."""

TASKS: dict[str, tuple[float, float]] = {
    "class_scene": (0.0, 100.0),
    "class_object": (0.0, 100.0),
    "room_layout": (-math.inf, 0.0),
    "jigsaw": (0.0, 100.0),
    "segmentsemantic": (0.0, 100.0),
    "normal": (-1.0, 1.0),
    "autoencoder": (-1.0, 1.0),
}
"""Range of each task's metric."""


Space = Literal["micro", "macro"]


@dataclass(frozen=True)
class TransNASBench101:
    """The architectures of one space with what was measured.

    Attributes:
        space: "micro", cells of six edges, or "macro", skeletons of four to six modules.
        codes: Of each architecture: for a cell, the place in `MICRO_OPERATIONS` of the operation on
            each of the edges 01, 02, 12, 03, 13, 23; for a skeleton, the types 1 to 4 of its
            modules.
        metrics: (n,) of each task that the table has.
    """

    space: Space
    codes: tuple[tuple[int, ...], ...]
    metrics: Mapping[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.codes)


def load_transnas_bench_101(
    path: str | os.PathLike[str], *, space: Space | None = None
) -> TransNASBench101:
    """Reads tnb101_micro.csv.gz or tnb101_macro.csv.gz.

    Args:
        path: A CSV file, gzipped or not, with the column naslib_ops and one for each of its tasks,
            keys of `TASKS`.
        space: Which space's codes it holds; by default the one whose they can be, as cells alone
            have a 0, and skeletons alone a 4 or less than six codes.

    Raises:
        FileFormatError: The file is truncated, damaged, or its columns or rows are not such.
        OSError: There is no such file.
    """
    file = Path(path)
    table = read_csv(file)
    texts = column(file, table, "naslib_ops")
    codes = tuple(_code(file, line, t) for line, t in zip(table.lines, texts, strict=True))
    fitting: list[Space] = []
    if all(len(code) == 6 and max(code) <= 3 for code in codes):
        fitting.append("micro")
    if all(min(code) >= 1 for code in codes):
        fitting.append("macro")
    if space is not None:
        fitting = [space] if space in fitting else []
    if len(fitting) != 1:
        raise FileFormatError(
            f"{file} must hold codes of {space or 'one space, micro or macro'}, "
            f"but holds those of {' or '.join(fitting) or 'none'}."
        )
    if len(set(codes)) != len(codes):
        raise FileFormatError(f"{file} must hold each architecture once, but repeats one.")
    metrics = {
        task: numbers(file, table, task, low=low, high=high)
        for task, (low, high) in TASKS.items()
        if task in table
    }
    if not metrics:
        raise FileFormatError(f"{file} must have a column of {', '.join(TASKS)}, but has none.")
    return TransNASBench101(fitting[0], codes, metrics)


def _code(file: Path, line: int, text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\([0-4](, [0-4]){3,5}\)", text):
        raise FileFormatError(
            f"line {line} of {file} must have naslib_ops of 4 to 6 codes 0 to 4, "
            f"but has {text[:60]!r}."
        )
    return tuple(int(digit) for digit in re.findall(r"\d", text))
