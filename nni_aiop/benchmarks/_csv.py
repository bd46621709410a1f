"""Columns of published tables in CSV, gzipped or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import FileFormatError
from nni_aiop.files import read_csv_rows

__all__ = ["Table", "column", "numbers", "read_csv"]

_MAX_BYTES = 64 * 2**20


class Table(dict[str, Sequence[str]]):
    """The columns of a CSV file by name, as text; `lines` has each row's line in the file."""

    lines: Sequence[int]


def read_csv(file: Path) -> Table:
    """The columns of a CSV file by name, as text."""
    header, rows = read_csv_rows(file, _MAX_BYTES)
    table = Table(zip(header, zip(*(row for _, row in rows), strict=True), strict=True))
    table.lines = [line for line, _ in rows]
    return table


def column(file: Path, table: Table, name: str) -> list[str]:
    """A column by its name, as text."""
    if name not in table:
        raise FileFormatError(f"{file} must have the column {name!r}, but has not.")
    return list(table[name])


def numbers(
    file: Path,
    table: Table,
    name: str,
    *,
    low: float = 0,
    high: float = math.inf,
) -> NDArray[np.float64]:
    """(n,) finite numbers of a column, from low to high."""
    limits = f"of {low:g} or more" if high == math.inf else f"from {low:g} to {high:g}"
    values = []
    for place, text in enumerate(column(file, table, name)):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (low <= value <= high and math.isfinite(value)):
            raise FileFormatError(
                f"line {table.lines[place]} of {file} must have a number {name!r} {limits}, "
                f"but has {text[:60]!r}."
            )
        values.append(value)
    return np.array(values)
