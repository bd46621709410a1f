"""Columns of published tables in CSV, gzipped or not."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import FileFormatError

__all__ = ["column", "numbers", "read_csv"]

_MAX_BYTES = 64 * 2**20


def read_csv(file: Path) -> dict[str, Sequence[str]]:
    """The columns of a CSV file by name, as text."""
    data = file.read_bytes()
    try:
        if data[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(data)) as stream:
                data = stream.read(_MAX_BYTES + 1)
        lines = list(csv.reader(io.StringIO(data[:_MAX_BYTES].decode("utf-8")), strict=True))
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError, csv.Error) as err:
        raise FileFormatError(f"{file} must be a whole CSV file, but is not: {err}.") from err
    if len(data) > _MAX_BYTES or len(lines) < 2:
        raise FileFormatError(
            f"{file} must have a header, rows, and at most {_MAX_BYTES} bytes, but has not."
        )
    header, *rows = lines
    for place, row in enumerate(rows):
        if len(row) != len(header):
            raise FileFormatError(
                f"row {place} of {file} must have {len(header)} columns, but has {len(row)}."
            )
    if len(set(header)) != len(header):
        raise FileFormatError(f"{file} must name each column differently, but does not.")
    return dict(zip(header, zip(*rows, strict=True), strict=True))


def column(file: Path, table: Mapping[str, Sequence[str]], name: str) -> list[str]:
    """A column by its name, as text."""
    if name not in table:
        raise FileFormatError(f"{file} must have the column {name!r}, but has not.")
    return list(table[name])


def numbers(
    file: Path,
    table: Mapping[str, Sequence[str]],
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
                f"row {place} of {file} must have a number {name!r} {limits}, "
                f"but has {text[:60]!r}."
            )
        values.append(value)
    return np.array(values)
