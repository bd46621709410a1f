"""Dimensions of one kind together: one look-up for hundreds of them, instead of one each.

Notation: n rows, d dimensions. Every result is that of the dimensions one by one, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nni_aiop.spaces._dimensions import Array, Continuous, Dimension, Value
from nni_aiop.spaces._listed import Nominal, Ordinal

__all__ = ["FEW", "Groups"]

FEW = 8
"""Up to so many rows, plain Python is quicker than an array operation for each dimension."""

_ABSENT = object()


class Groups:
    """The dimensions of a space by how they are coded.

    Args:
        dimensions: All of them, in their order.
    """

    def __init__(self, dimensions: Sequence[Dimension]) -> None:
        self.dimensions = tuple(dimensions)
        self.defaults = np.array([d.default for d in self.dimensions], dtype=np.float64)
        self.real = [j for j, d in enumerate(self.dimensions) if isinstance(d, Continuous)]
        starts = np.cumsum([0, *(d.width for d in self.dimensions)])
        self.width = int(starts[-1])
        kinds: dict[str, list[int]] = {"even": [], "grid": [], "nominal": [], "other": []}
        for j, d in enumerate(self.dimensions):
            kinds[_kind(d)].append(j)
        self._even = _Even(self.dimensions, kinds["even"], starts)
        self._grid = _Grid(self.dimensions, kinds["grid"], starts)
        self._nominal = _OneHot(self.dimensions, kinds["nominal"], starts)
        self._others = [
            (j, self.dimensions[j], slice(int(starts[j]), int(starts[j + 1])))
            for j in kinds["other"]
        ]
        self._tabled = [
            (j, self.dimensions[j], slice(int(starts[j]), int(starts[j + 1])))
            for j in kinds["grid"]
        ]
        self._readers = [
            (d.label, _index_of(d), float(d.point(d.value(d.default)))) for d in self.dimensions
        ]
        self._lists = [d.values if _is_plain(d) else None for d in self.dimensions]  # type: ignore[attr-defined]

    def __reduce__(self) -> tuple[Any, ...]:
        return Groups, (self.dimensions,)  # what was built of them may hold functions

    # --- samples -----------------------------------------------------------------------------

    def row(self, sample: Mapping[str, Value]) -> list[float]:
        """The point of a sample; a missing label takes the default, one of no dimension is ignored.

        Raises:
            KeyError, TypeError, ValueError: A value is not one of its dimension's.
        """
        get = sample.get
        return [
            default if (value := get(label, _ABSENT)) is _ABSENT else point(value)
            for label, point, default in self._readers
        ]

    def values(self, row: Sequence[float]) -> list[Value]:
        """The value of each dimension at a point."""
        return [
            d.value(p) if values is None else values[int(p)]
            for d, values, p in zip(self.dimensions, self._lists, row, strict=True)
        ]

    # --- codes -------------------------------------------------------------------------------

    def encode(self, points: Array) -> Array:
        """(n, width) codes of (n, d) points."""
        out = np.zeros((len(points), self.width))
        if not (self._grid.put(points, out) and self._nominal.put(points, out)):
            # A point that no value has is refused, or not, by its dimension.
            return np.concatenate(
                [d.encode(points[:, j]) for j, d in enumerate(self.dimensions)], axis=1
            )
        self._even.put(points, out)
        for j, d, columns in self._others:
            out[:, columns] = d.encode(points[:, j])
        return out

    def decode(self, codes: Array) -> Array:
        """(n, d) the nearest points of any finite codes (n, width)."""
        out = np.empty((len(codes), len(self.dimensions)))
        self._even.read(codes, out)
        self._nominal.read(codes, out)
        alone = self._others
        if len(codes) <= FEW:
            self._grid.read(codes, out)
        else:
            alone = self._tabled + alone
        for j, d, columns in alone:
            out[:, j] = d.decode(codes[:, columns])
        return out

    # --- keys --------------------------------------------------------------------------------

    def keys(self, points: Array, active: NDArray[np.bool_]) -> list[str]:
        """The numbers of each point as one text, "-" where a dimension is not active."""
        listed = points
        if self.real:
            listed = points.copy()
            listed[:, self.real] = 0.0
        rows: list[list[Any]] = listed.astype(np.int64).tolist()
        for j in self.real:
            for row, p in zip(rows, points[:, j].tolist(), strict=True):
                row[j] = repr(p)
        return [
            ",".join(map(str, row))
            if all(matters)
            else ",".join([str(p) if a else "-" for p, a in zip(row, matters, strict=True)])
            for row, matters in zip(rows, active.tolist(), strict=True)
        ]


def _is_plain(d: Dimension) -> bool:
    return type(d) in (Ordinal, Nominal)


def _kind(d: Dimension) -> str:
    if type(d) is Ordinal:
        return "even" if d._uniform and len(d.values) > 1 else "grid"
    return "nominal" if type(d) is Nominal else "other"


def _index_of(d: Dimension) -> Callable[[Value], float]:
    return d._index if isinstance(d, (Ordinal, Nominal)) and _is_plain(d) else d.point


def _indices(
    points: Array, places: NDArray[np.intp], sizes: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """(n, k) the numbers of values at k places of (n, d) points; None where one has no value."""
    index = points[:, places].astype(np.int64)
    return None if ((index < 0) | (index >= sizes)).any() else index


class _Even:
    """Ordinals whose codes are evenly spaced: point / (number of values - 1)."""

    def __init__(
        self, dimensions: Sequence[Dimension], places: Sequence[int], starts: NDArray[np.intp]
    ) -> None:
        self._places = np.array(places, dtype=np.intp)
        self._columns = starts[self._places]
        self._last = np.array([dimensions[j].size - 1 for j in places], dtype=np.float64)

    def put(self, points: Array, out: Array) -> None:
        if len(self._places):
            out[:, self._columns] = points[:, self._places] / self._last

    def read(self, codes: Array, out: Array) -> None:
        if len(self._places):
            columns = np.clip(codes[:, self._columns], 0.0, 1.0)
            out[:, self._places] = np.rint(columns * self._last)


class _Grid:
    """Other ordinals: a table of the code of each value."""

    def __init__(
        self, dimensions: Sequence[Dimension], places: Sequence[int], starts: NDArray[np.intp]
    ) -> None:
        self._places = np.array(places, dtype=np.intp)
        self._columns = starts[self._places]
        grids = [d.grid for d in (dimensions[j] for j in places) if isinstance(d, Ordinal)]
        self._sizes = np.array([len(grid) for grid in grids], dtype=np.int64)
        self._offsets = np.cumsum(self._sizes) - self._sizes
        self._table = np.concatenate([np.empty(0), *grids])
        # Of each size: which of these dimensions, and (k, size - 1) between their codes.
        self._alike = [
            (chosen, np.stack([(g[1:] + g[:-1]) / 2 for g in grids if len(g) == size]))
            for size in sorted(set(self._sizes.tolist()))
            for chosen in (self._sizes == size,)
        ]

    def put(self, points: Array, out: Array) -> bool:
        """Whether every point has a code, which then stands in `out`."""
        index = _indices(points, self._places, self._sizes)
        if index is None:
            return False
        out[:, self._columns] = self._table[index + self._offsets]
        return True

    def read(self, codes: Array, out: Array) -> None:
        for chosen, midpoints in self._alike:
            column = np.clip(codes[:, self._columns[chosen]], 0.0, 1.0)
            out[:, self._places[chosen]] = (midpoints < column[:, :, None]).sum(axis=2)


class _OneHot:
    """Nominal dimensions: a column for each value."""

    def __init__(
        self, dimensions: Sequence[Dimension], places: Sequence[int], starts: NDArray[np.intp]
    ) -> None:
        self._places = np.array(places, dtype=np.intp)
        self._columns = starts[self._places]
        self._sizes = np.array([dimensions[j].width for j in places], dtype=np.int64)
        # Of each width: which of these dimensions, and (k, width) their columns.
        self._alike = [
            (self._places[chosen], self._columns[chosen][:, None] + np.arange(width))
            for width in sorted(set(self._sizes.tolist()))
            for chosen in (self._sizes == width,)
        ]

    def put(self, points: Array, out: Array) -> bool:
        """Whether every point has a code, which then stands in `out`."""
        index = _indices(points, self._places, self._sizes)
        if index is None:
            return False
        out[np.arange(len(out))[:, None], index + self._columns] = 1.0
        return True

    def read(self, codes: Array, out: Array) -> None:
        for places, columns in self._alike:
            out[:, places] = codes[:, columns].argmax(axis=2)
