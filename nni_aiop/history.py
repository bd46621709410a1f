"""Samples and their metrics as CSV: one column for each dimension and each metric."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import FileFormatError, SpaceError
from nni_aiop.files import csv_number, parse_json, plain, read_csv_rows, write_atomically
from nni_aiop.spaces import Continuous, Nominal, Subset

if TYPE_CHECKING:
    from nni_aiop.spaces import CodeSpace, Dimension, Sample, Value

__all__ = ["HistoryRows", "cell_texts", "check_names", "read_history", "write_history"]

_BLOCK = 1024  # rows that are looked at together
_MOST_SHOWN = 10_000  # cells of a dimension that are remembered


def check_names(space: CodeSpace, metrics: Iterable[str] = ()) -> None:
    """Refuse names that would share a column of `history.csv` with a dimension.

    Raises:
        SpaceError: A metric, or an exact cost of the space, is named as a dimension.
    """
    for name in (*metrics, *space.costs):
        if name in space.labels:
            raise SpaceError(
                "a metric or a cost must not be named as a dimension of the space, "
                f"but got {name!r}."
            )


def _cell(value: Any) -> str:
    """One CSV cell: JSON for a list, empty for NaN, else the value's text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return json.dumps(plain(value)) if isinstance(value, (list, tuple)) else str(value)


class _Cells:
    """How the values of one dimension are written into the cells of a CSV, and read from them."""

    def __init__(self, dimension: Dimension) -> None:
        self.dimension = dimension
        values: Sequence[Value] = getattr(dimension, "values", ())
        self._is_range = isinstance(values, range)
        self._values = () if self._is_range else values  # a range may be too long to be listed
        self._shown: dict[int, str] = {}

    @cached_property
    def _texts(self) -> list[str]:
        """The text of each listed value: its `repr` where plain texts are equal or empty."""
        show = _json if isinstance(self.dimension, Subset) else _cell
        texts = [show(v) for v in self._values]
        if len(set(texts)) < len(texts) or "" in texts:
            texts = [show(repr(v)) for v in self._values]
        return texts

    @cached_property
    def _value_of(self) -> dict[str, Value]:
        return dict(zip(self._texts, self._values, strict=True))

    def text(self, point: float) -> str:
        """The cell of a point."""
        if isinstance(self.dimension, Continuous):
            return _cell(self.dimension.value(point))
        index = int(point)
        shown = self._shown.get(index)
        if shown is None:
            shown = self._text(index)
            if len(self._shown) < _MOST_SHOWN:
                self._shown[index] = shown
        return shown

    def _text(self, index: int) -> str:
        if isinstance(self.dimension, Subset):
            return f"[{', '.join(t for i, t in enumerate(self._texts) if index >> i & 1)}]"
        if isinstance(self.dimension, Nominal):
            return self._texts[index]
        return _cell(self.dimension.value(index))

    def value(self, text: str) -> Value:
        """The value that a cell shows.

        Raises:
            FileFormatError: The dimension has no such value.
        """
        try:
            value = self._parse(text)
            self.dimension.point(value)
        except (KeyError, TypeError, ValueError, OverflowError) as err:
            raise FileFormatError(
                f"{self.dimension.label!r} must be one of {self.dimension.describe():.300}, "
                f"but got {text!r:.80}."
            ) from err
        return value

    def _parse(self, text: str) -> Value:
        if isinstance(self.dimension, Subset):
            chosen = parse_json(text, "a cell")
            if not isinstance(chosen, list):
                raise TypeError(text)
            return [self._value_of[_json(v)] for v in chosen]
        if text in self._value_of:
            return self._value_of[text]
        if not isinstance(self.dimension, Nominal):
            number = float(text)
            if number.is_integer() and not isinstance(self.dimension, Continuous):
                return int(text if text.isdecimal() else number)
            if self._is_range:  # it would look through all its numbers for this one
                raise ValueError(text)
            return number
        data = parse_json(text, "a cell")  # written by hand: 1.0 for 1, [1,2] for (1, 2)
        for value in self._values:
            if plain(value) == data and isinstance(value, bool) == isinstance(data, bool):
                return value
        raise KeyError(text)


def _json(value: Any) -> str:
    return json.dumps(plain(value))


def cell_texts(dimension: Nominal | Subset) -> list[str]:
    """How a CSV shows each value of a nominal dimension, or each candidate of a subset."""
    return list(_Cells(dimension)._texts)


class HistoryRows:
    """The lines of a `history.csv`: its heading, and rows that follow each other.

    Args:
        space: The space of the samples, of which active labels are written.
        columns: Names of the numbers, none that of a dimension.
    """

    def __init__(self, space: CodeSpace, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._space = space
        self._cells = [_Cells(d) for d in space.dimensions]
        self._numbered = "number" not in {*space.labels, *columns}

    @property
    def heading(self) -> str:
        """The first line."""
        return _lines([[*["number"] * self._numbered, *self._space.labels, *self.columns]])

    def text(
        self,
        samples: Sequence[Sample],
        columns: Mapping[str, Sequence[float] | NDArray[np.float64]],
        first: int = 0,
    ) -> str:
        """The lines of samples.

        Args:
            samples: n of them.
            columns: n numbers by the names of the columns; NaN becomes an empty cell.
            first: The number of the first sample.
        """
        measured = [columns[name] for name in self.columns]
        lines = []
        for start in range(0, len(samples), _BLOCK):
            points = self._space.points(samples[start : start + _BLOCK])
            active = self._space.active_points(points).tolist()
            for i, (row, matters) in enumerate(zip(points.tolist(), active, strict=True), start):
                shown = [
                    cells.text(point) if matter else ""
                    for cells, point, matter in zip(self._cells, row, matters, strict=True)
                ]
                numbers = [_cell(column[i]) for column in measured]
                lines.append([*[first + i] * self._numbered, *shown, *numbers])
        return _lines(lines)


def _lines(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_history(
    path: Path | str,
    space: CodeSpace,
    samples: Sequence[Sample],
    columns: Mapping[str, NDArray[np.float64]],
) -> Path:
    """The path, which now holds a row for each sample, numbered unless a column has that name.

    Args:
        path: The file to write.
        space: The space of the samples, of which active labels are written.
        samples: n of them.
        columns: (n,) numbers by name, none that of a dimension; NaN becomes an empty cell.
    """
    rows = HistoryRows(space, list(columns))
    return write_atomically(path, rows.heading + rows.text(samples, columns))


def read_history(
    path: Path | str, space: CodeSpace, metrics: Sequence[str] = ()
) -> tuple[list[Sample], dict[str, NDArray[np.float64]]]:
    """(samples, metric columns) of a CSV with one column for each dimension, as `history.csv`.

    An empty cell of a dimension means inactive; an empty cell of a metric means NaN.

    Args:
        path: The file.
        space: The space of the samples.
        metrics: Which columns to read; by default all but the dimensions and `number`.

    Raises:
        FileFormatError: A column is missing, or a cell is no value of its dimension or no number.
    """
    path = Path(path)
    heading, rows = read_csv_rows(path)
    numbered = heading[:1] == ["number"] and "number" not in space.labels  # as `history.csv`
    wanted = list(metrics) or [c for c in heading[numbered:] if c not in space.labels]
    for column in (*space.labels, *wanted):
        if column not in heading:
            raise FileFormatError(
                f"{path} must have a column {column!r:.80}, but has {heading!s:.300}."
            )
    where = {column: heading.index(column) for column in heading}
    cells = {d.label: _Cells(d) for d in space.dimensions}
    samples: list[Sample] = []
    columns: dict[str, list[float]] = {name: [] for name in wanted}
    for number, row in rows:
        try:
            sample = {k: cells[k].value(row[where[k]]) for k in cells if row[where[k]]}
            problem = space.violation(sample)
        except FileFormatError as err:
            problem = str(err)
        if problem is not None:
            raise FileFormatError(f"{path}, line {number}: {problem}")
        samples.append(sample)
        for name in wanted:
            columns[name].append(
                csv_number(row[where[name]], f"{path}, line {number}, column {name!r:.80}")
            )
    return samples, {name: np.array(column) for name, column in columns.items()}
