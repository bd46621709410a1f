"""Tables of measured architectures: publishers' files by the space that they measure, and CSV."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nni_aiop.benchmarks.naap440 import load_naap440
from nni_aiop.benchmarks.nas_bench_101 import load_nas_bench_101
from nni_aiop.benchmarks.nas_bench_201 import load_nas_bench_201, load_nas_bench_201_csv
from nni_aiop.benchmarks.nas_bench_mr import SETTINGS, load_nas_bench_mr
from nni_aiop.benchmarks.ofa_mbv3 import load_ofa_mbv3
from nni_aiop.benchmarks.transnas_bench_101 import MICRO_OPERATIONS, load_transnas_bench_101
from nni_aiop.errors import FileFormatError, SpaceError
from nni_aiop.history import read_history
from nni_aiop.spaces import CodeSpace, Sample

__all__ = ["load_table"]

Array = NDArray[np.float64]
Table = tuple[Array, dict[str, Array]]
"""(n, width) codes and the (n,) values of each metric."""


def load_table(path: Path | str, space: CodeSpace, metrics: Sequence[str] = ()) -> Table:
    """Codes and metrics of a benchmark's original file, or of a CSV of samples and metrics.

    Args:
        path: A file; of NAS-Bench-MR inside the folder that names its setting, as published.
        space: What was measured.
        metrics: Which ones to take; all of them by default.

    Raises:
        FileFormatError: The file is damaged, of another kind, or lacks a metric.
        OSError: The file cannot be read.
    """
    path = Path(path)
    reader = _READERS.get(space.name)
    if reader is not None and (path.suffix != ".csv" or _is_published(path, space)):
        codes, columns = reader(path, space)
    else:
        samples, columns = read_history(path, space, metrics)
        codes = space.encode(samples)
    for name in metrics:
        if name not in columns:
            raise FileFormatError(
                f"{path} must have the metric {name!r}, but has {', '.join(columns)}."
            )
    return codes, {name: columns[name] for name in (metrics or columns)}


def _multi_resolution(path: Path, space: CodeSpace) -> Table:
    setting = path.resolve().parent.name
    if setting not in SETTINGS:
        raise FileFormatError(
            "a NAS-Bench-MR file must lie in a folder named as its setting, one of "
            f"{', '.join(SETTINGS)}, but got {path}."
        )
    table = load_nas_bench_mr(path, setting)
    samples = [dict(zip(space.labels, row, strict=True)) for row in table.embedding.tolist()]
    return space.encode(samples), dict(table.metrics)


def _is_published(path: Path, space: CodeSpace) -> bool:
    """Whether a CSV is the published table: a search's history has its metrics, but no more."""
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        heading = next(csv.reader([file.readline()]), [])
    return any(marks <= set(heading) for marks in _PUBLISHED_COLUMNS.get(space.name, ()))


def _mobilenetv3(path: Path, space: CodeSpace) -> Table:
    table = load_ofa_mbv3(path)
    samples: list[Sample] = [*table.samples]
    sides = table.resolution.tolist()
    if "r" in space.labels:
        samples = [sample | {"r": side} for sample, side in zip(samples, sides, strict=True)]
    elif len(set(sides)) > 1:
        raise FileFormatError(
            f"{path} must hold networks of one resolution, as the space has no dimension 'r', "
            f"but has {len(set(sides))}."
        )
    try:
        return space.encode(samples), {**table.metrics}
    except SpaceError as err:  # another resolution
        raise FileFormatError(f"{path}: {err}") from err


def _naap(path: Path, space: CodeSpace) -> Table:
    table = load_naap440(path)
    # The publisher numbers the architectures as they are listed, from 1.
    points = space.enumerate_points()
    _, first = np.unique(space.keys(points), return_index=True)
    points = points[np.sort(first)]
    if table.model_id.max() > len(points):
        raise FileFormatError(
            f"{path} must have a ModelId from 1 to {len(points)}, but has {table.model_id.max()}."
        )
    codes = space.encode_points(points[table.model_id - 1])
    return codes, {"max_accuracy": table.max_accuracy}


def _nasbench101(path: Path, space: CodeSpace) -> Table:
    table = load_nas_bench_101(path)
    samples = []
    for matrix, operations in zip(table.adjacency, table.operations, strict=True):
        # A smaller cell takes the first vertices and the output; the rest stay at their defaults.
        places = [*range(len(matrix) - 1), 6]
        sample: Sample = {
            f"edge_{places[i]}{places[j]}": int(matrix[i, j])
            for i, j in combinations(range(len(matrix)), 2)
        }
        samples.append(sample | {f"op_{v}": name for v, name in enumerate(operations, start=1)})
    return space.encode(samples), {**table.metrics}


def _nasbench201(path: Path, space: CodeSpace) -> Table:
    table = load_nas_bench_201(path) if path.suffix == ".pkl" else load_nas_bench_201_csv(path)
    samples = [dict(zip(space.labels, row, strict=True)) for row in table.operations]
    return space.encode(samples), {**table.metrics}


def _transnas101_micro(path: Path, space: CodeSpace) -> Table:
    table = load_transnas_bench_101(path, space="micro")
    samples = [
        dict(zip(space.labels, (MICRO_OPERATIONS[place] for place in code), strict=True))
        for code in table.codes
    ]
    return space.encode(samples), {**table.metrics}


def _transnas101_macro(path: Path, space: CodeSpace) -> Table:
    table = load_transnas_bench_101(path, space="macro")
    samples = [dict(zip(space.labels, (len(code), *code), strict=False)) for code in table.codes]
    return space.encode(samples), {**table.metrics}


_READERS: dict[str, Callable[[Path, CodeSpace], Table]] = {
    "mobilenetv3": _mobilenetv3,
    "multi_resolution": _multi_resolution,
    "naap": _naap,
    "nasbench101": _nasbench101,
    "nasbench201": _nasbench201,
    "transnas101_macro": _transnas101_macro,
    "transnas101_micro": _transnas101_micro,
}

_PUBLISHED_COLUMNS: dict[str, tuple[set[str], ...]] = {
    "mobilenetv3": ({"arch"}, {"arch_id"}, {"run"}),
    "naap": ({"ModelId", "IsTest"},),
    "nasbench101": ({"adjacency", "ops"},),
    "nasbench201": ({"params_c100_m", "flops_c100_m"},),
    "transnas101_macro": ({"naslib_ops"},),
    "transnas101_micro": ({"naslib_ops"},),
}
"""Columns, any set of which marks a CSV as published."""
