"""NAS-Bench-101's cells (Ying et al., 2019) from a table in CSV (gzip).

Each row is a pruned cell: its adjacency matrix and inner operations as the publisher writes them,
validation accuracies (fractions, means of three runs) after 4, 12, 36 and 108 epochs on CIFAR-10,
the seconds that training took, and the exact number of parameters.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nni_aiop.benchmarks._csv import column, numbers, read_csv
from nni_aiop.errors import FileFormatError

__all__ = ["OPERATIONS", "NASBench101", "load_nas_bench_101"]

OPERATIONS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
"""Of the vertices between input and output."""

_MAX_VERTICES = 7
_MAX_EDGES = 9
_ACCURACIES = ("val4", "val12", "val36", "val108")
_MAX_PARAMS = 2.0**53


@dataclass(frozen=True)
class NASBench101:
    """The cells with what was measured; everything has an entry a cell.

    Attributes:
        adjacency: (v, v) zeros and ones of each cell, 2 <= v <= 7, ones above the diagonal only;
            the first vertex is the input, the last the output.
        operations: The v - 2 `OPERATIONS` of each cell.
        metrics: (n,) of `val4`, `val12`, `val36` and `val108`, fractions.
        train_time: (n,) seconds of training for 108 epochs.
        params: (n,) number of parameters, as published.
    """

    adjacency: tuple[NDArray[np.int64], ...]
    operations: tuple[tuple[str, ...], ...]
    metrics: Mapping[str, NDArray[np.float64]]
    train_time: NDArray[np.float64]
    params: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.adjacency)


def load_nas_bench_101(path: str | os.PathLike[str]) -> NASBench101:
    """Reads the table nb101_30k.csv.gz, or another of its layout.

    Args:
        path: A CSV file, gzipped or not, with the columns n_vertices, adjacency (row-major zeros
            and ones), ops (inner operations, joined by `|`), val4, val12, val36, val108,
            train_time_s and params.

    Raises:
        FileFormatError: The file is truncated, damaged, or its columns or rows are not such cells.
        OSError: There is no such file.
    """
    file = Path(path)
    table = read_csv(file)
    rows = zip(
        table.lines,
        column(file, table, "n_vertices"),
        column(file, table, "adjacency"),
        column(file, table, "ops"),
        strict=True,
    )
    matrices, operations, seen = [], [], set()
    for line, n_vertices, adjacency, ops in rows:
        if (adjacency, ops) in seen:
            raise FileFormatError(f"{file} must hold each cell once, but line {line} repeats one.")
        seen.add((adjacency, ops))
        matrices.append(_matrix(file, line, n_vertices, adjacency))
        operations.append(_operations(file, line, len(matrices[-1]) - 2, ops))
    params = numbers(file, table, "params", high=_MAX_PARAMS)
    if (params % 1).any():
        raise FileFormatError(f"column params of {file} must hold whole numbers, but does not.")
    return NASBench101(
        adjacency=tuple(matrices),
        operations=tuple(operations),
        metrics={name: numbers(file, table, name, high=1) for name in _ACCURACIES},
        train_time=numbers(file, table, "train_time_s"),
        params=params,
    )


def _matrix(file: Path, line: int, n_vertices: str, adjacency: str) -> NDArray[np.int64]:
    n = int(n_vertices) if n_vertices in map(str, range(2, _MAX_VERTICES + 1)) else 0
    if not n:
        raise FileFormatError(
            f"line {line} of {file} must have 2 to {_MAX_VERTICES} vertices, "
            f"but has {n_vertices[:60]!r}."
        )
    if len(adjacency) != n * n or not set(adjacency) <= set("01"):
        raise FileFormatError(
            f"line {line} of {file} must have an adjacency of {n * n} zeros and ones, "
            f"but has {adjacency[:60]!r}."
        )
    matrix = np.array([int(digit) for digit in adjacency]).reshape(n, n)
    # Where edges run forwards, every vertex is on a path once it has an edge in and an edge out.
    if np.tril(matrix).any() or not (matrix[:-1].any(1).all() and matrix[:, 1:].any(0).all()):
        raise FileFormatError(
            f"line {line} of {file} must have edges that run forwards, and each vertex on a path "
            f"from first to last, but has the adjacency {adjacency!r}."
        )
    if matrix.sum() > _MAX_EDGES:
        raise FileFormatError(
            f"line {line} of {file} must have at most {_MAX_EDGES} edges, but has {matrix.sum()}."
        )
    return matrix


def _operations(file: Path, line: int, n: int, ops: str) -> tuple[str, ...]:
    operations = tuple(ops.split("|")) if ops else ()
    if len(operations) != n or not set(operations) <= set(OPERATIONS):
        raise FileFormatError(
            f"line {line} of {file} must have {n} operations of {', '.join(OPERATIONS)}, "
            f"but has {ops[:60]!r}."
        )
    return operations
