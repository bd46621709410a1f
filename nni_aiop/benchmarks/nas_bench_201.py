"""NAS-Bench-201: all 15,625 cells (Dong & Yang, 2020), from either of two files.

One is the publisher's pickle of NCP (github.com/dingmyu/NCP, data/nas-bench-201/trainval.pkl):
ImageNet16-120 validation accuracy, with the costs of the CIFAR-100 network. 150 of its rows carry
the costs of another, isomorphic cell (one that computes a repeated term once where the other
computes it twice); exact costs are `nni_aiop.search_spaces.nasbench201.params` and `flops`.

The other is a table in CSV (gzip) with accuracies on the three data sets and exact costs, which
another table of measured latencies can join.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nni_aiop.benchmarks._csv import column, numbers, read_csv
from nni_aiop.benchmarks._pickles import NUMPY, Array, load_plain
from nni_aiop.errors import FileFormatError

__all__ = [
    "EDGES",
    "OPERATIONS",
    "NASBench201",
    "load_nas_bench_201",
    "load_nas_bench_201_csv",
]

EDGES = ("01", "02", "12", "03", "13", "23")
"""From node to node, in the order of the embedding."""

OPERATIONS = ("avg_pool_3x3", "none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")
"""In the order of each edge's five one-hot columns."""

_ACCURACIES = (
    "c10_test",
    "c100_test",
    "in16_test",
    "c10_val",
    "c100_val",
    "in16_val",
    "in16_val_ncp",
)


@dataclass(frozen=True)
class NASBench201:
    """The cells with what was measured; every array has a row a cell.

    Both files hold the cells in the same order, that of the benchmark's own index.

    Attributes:
        embedding: (n, 30) one-hot codes, `EDGES` by `OPERATIONS`.
        metrics: (n,) of each accuracy, in percent.
        params: (n,) number of parameters of the CIFAR-100 network, as published.
        flops: (n,) multiply-adds of the CIFAR-100 network, as published (rounded to 10,000).
        latency: (n,) of each device in milliseconds, where a file of latencies was given.
    """

    embedding: NDArray[np.float64]
    metrics: Mapping[str, NDArray[np.float64]]
    params: NDArray[np.float64]
    flops: NDArray[np.float64]
    latency: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.embedding)

    @cached_property
    def operations(self) -> list[tuple[str, ...]]:
        """The operation on each of `EDGES`, for every cell."""
        chosen = self.embedding.reshape(-1, len(EDGES), len(OPERATIONS)).argmax(axis=2)
        return [tuple(OPERATIONS[place] for place in row) for row in chosen.tolist()]


def load_nas_bench_201(path: str | os.PathLike[str]) -> NASBench201:
    """Reads NCP's own pickle; its one metric is `Acc`, the ImageNet16-120 validation accuracy.

    Args:
        path: The benchmark's folder, which holds `data/nas-bench-201/trainval.pkl` (a clone of
            github.com/dingmyu/NCP), or the `trainval.pkl` itself.

    Raises:
        FileFormatError: The file is truncated, damaged, names anything but plain NumPy arrays,
            or its rows are not such cells.
        OSError: There is no such file.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "data" / "nas-bench-201" / "trainval.pkl"
    rows = load_plain(file, admitted=NUMPY)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise FileFormatError(f"{file} must hold a list of dicts, but does not.")
    width = len(EDGES) * len(OPERATIONS)
    codes = []
    for place, row in enumerate(rows):
        code = row.get("embedding")
        values = code.values if isinstance(code, Array) else None
        if values is None or values.shape != (width,) or values.dtype.kind not in "fiu":
            raise FileFormatError(
                f"row {place} of {file} must have an embedding of {width} numbers, but has not."
            )
        for key in ("Acc", "Flops", "Params"):
            value = row.get(key)
            if type(value) is not float or not 0 <= value < 1e6:
                raise FileFormatError(
                    f"row {place} of {file} must have a number {key!r} from 0 to 1e6, but has not."
                )
        codes.append(values.astype(np.float64))
    embedding = np.stack(codes)
    _check_one_hot(file, embedding)
    return NASBench201(
        embedding=embedding,
        metrics={"Acc": np.array([row["Acc"] for row in rows])},
        params=np.rint(np.array([row["Params"] for row in rows]) * 1e6),
        flops=np.rint(np.array([row["Flops"] for row in rows]) * 1e6),
    )


def load_nas_bench_201_csv(
    path: str | os.PathLike[str], *, latency: str | os.PathLike[str] | None = None
) -> NASBench201:
    """Reads the table nb201.csv.gz, and latencies where a second table is given.

    Its metrics are the columns c10, c100 and in16 (ImageNet16-120), `_test` (mean of the seeds at
    200 epochs) and `_val`, and `in16_val_ncp`, which is the `Acc` of NCP's file.

    Args:
        path: A CSV file, gzipped or not, with the columns op_01, ..., op_23, the metrics,
            params_c100_m and flops_c100_m.
        latency: Another with the column `index`, the cell's row in the first, and a column of
            milliseconds for each device.

    Raises:
        FileFormatError: A file is truncated, damaged, or its columns or rows are not such cells.
        OSError: There is no such file.
    """
    file = Path(path)
    table = read_csv(file)
    edges = [column(file, table, f"op_{edge}") for edge in EDGES]
    for edge, chosen in zip(EDGES, edges, strict=True):
        strangers = set(chosen) - set(OPERATIONS)
        if strangers:
            raise FileFormatError(
                f"column op_{edge} of {file} must hold operations of {', '.join(OPERATIONS)}, "
                f"but holds {min(strangers)[:60]!r}."
            )
    embedding = np.concatenate(
        [
            np.eye(len(OPERATIONS))[[OPERATIONS.index(operation) for operation in chosen]]
            for chosen in edges
        ],
        axis=1,
    )
    _check_one_hot(file, embedding)
    return NASBench201(
        embedding=embedding,
        metrics={name: numbers(file, table, name) for name in _ACCURACIES},
        params=np.rint(numbers(file, table, "params_c100_m") * 1e6),
        flops=np.rint(numbers(file, table, "flops_c100_m") * 1e6),
        latency={} if latency is None else _latencies(Path(latency), len(embedding)),
    )


def _check_one_hot(file: Path, embedding: NDArray[np.float64]) -> None:
    edges = embedding.reshape(len(embedding), len(EDGES), len(OPERATIONS))
    if not (np.isin(edges, (0.0, 1.0)).all() and (edges.sum(axis=2) == 1).all()):
        raise FileFormatError(
            f"{file} must choose one operation for each of {len(EDGES)} edges, but does not."
        )
    if len(np.unique(edges.argmax(axis=2), axis=0)) != len(embedding):
        raise FileFormatError(f"{file} must hold each cell once, but repeats one.")


def _latencies(file: Path, n: int) -> dict[str, NDArray[np.float64]]:
    table = read_csv(file)
    if column(file, table, "index") != [str(place) for place in range(n)]:
        raise FileFormatError(f"column index of {file} must count from 0 to {n - 1}, but does not.")
    return {name: numbers(file, table, name) for name in table if name != "index"}
