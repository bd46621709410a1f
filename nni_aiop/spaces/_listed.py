"""Dimensions whose choices are a list: ordered, unordered, or any number of them at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise
from numbers import Real
from operator import index
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import SpaceError
from nni_aiop.spaces._dimensions import Array, Dimension, Value, is_finite, shown

_MAX_GRID = 1_000_000


_MAX_VALUES = 2**53  # so many points are exact in a float64
_LARGE = 1e300
_MAX_SUBSET = 52  # a bit mask is exact in a float64 up to 2**53


def _lookup(values: Sequence[Value]) -> Callable[[Value], int]:
    """A function from a value to its index; it raises KeyError, TypeError or ValueError for a
    stranger."""
    if isinstance(values, range):
        # range.index finds an int by arithmetic, but looks for anything else one by one.
        return lambda value: values.index(
            int(value) if isinstance(value, float) and value.is_integer() else index(value)
        )
    try:
        table = {v: i for i, v in enumerate(values)}
    except TypeError:  # unhashable values, such as lists
        table = {}
    if len(table) == len(values):
        return table.__getitem__
    # True == 1 == 1.0 in Python: where a space tells them apart, so does the text.
    shown = {repr(v): i for i, v in enumerate(values)}
    return lambda value: shown[repr(value)]


@dataclass(frozen=True)
class _Listed(Dimension):
    values: Sequence[Value]

    def __post_init__(self) -> None:
        if not isinstance(self.values, range):
            object.__setattr__(self, "values", tuple(self.values))
        try:
            n = len(self.values)
        except OverflowError:  # a range
            n = _MAX_VALUES + 1
        if n > _MAX_VALUES:
            raise SpaceError(
                f"{self.label!r} must have at most 2**53 values, but got more; "
                "a range without a step is Continuous."
            )
        if n == 0:
            raise SpaceError(f"{self.label!r} must have at least one value, but got none.")
        seen = {repr(v) for v in self.values} if len(self.values) <= _MAX_GRID else self.values
        if len(seen) != len(self.values):
            raise SpaceError(f"the values of {self.label!r} must differ, but got {self.values!r}.")

    @cached_property
    def _index(self) -> Callable[[Value], int]:
        return _lookup(self.values)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_index"}

    @property
    def size(self) -> int | float:
        return len(self.values)

    def point(self, value: Value) -> float:
        return self._index(value)

    def value(self, point: float) -> Value:
        return self.values[int(point)]

    def values_of(self, points: Array) -> list[Value]:
        values = self.values
        return [values[i] for i in points.astype(np.int64).tolist()]

    def random(self, n: int, rng: np.random.Generator) -> Array:
        return rng.integers(len(self.values), size=n).astype(np.float64)

    def options(self, limit: int) -> Array:
        n = len(self.values)
        return np.unique(np.round(np.linspace(0, n - 1, min(n, limit))))

    def near(self, code: Array, limit: int = 1000) -> Array:
        centre = self.decode(code[None])[0]
        around = np.arange(centre - limit // 2, centre + limit // 2)
        return around[(around >= 0) & (around < len(self.values))]

    def describe(self) -> str:
        if len(self.values) <= 8:
            return "[" + ", ".join(repr(v) for v in self.values) + "]"
        first, second, last = self.values[0], self.values[1], self.values[-1]
        return f"[{first!r}, {second!r}, ..., {last!r}] ({len(self.values)} values)"


@dataclass(frozen=True)
class Ordinal(_Listed):
    """A number out of a sorted list, shown as one code column.

    Args:
        label: Name of the dimension.
        values: Increasing numbers; a `range` is fine.
        scale: How a value sits in [0, 1]: by rank, in proportion to it, or to its logarithm.
        step: How many ranks one winner-takes-all edit moves (k of NCP's Eq. 4).

    Raises:
        SpaceError: The values are not increasing numbers, or not positive with `scale="log"`.
    """

    scale: Literal["rank", "linear", "log"] = "rank"
    step: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.values, range):
            increasing = self.values.step > 0
            ends: Sequence[Value] = (self.values[0], self.values[-1])
        else:
            ends = self.values
            increasing = all(isinstance(v, Real) for v in self.values) and all(
                a < b for a, b in pairwise(self.values)
            )
        if not increasing:
            raise SpaceError(
                f"the values of the ordinal {self.label!r} must be increasing numbers, "
                f"but got {self.values!r:.200}."
            )
        for value in ends:
            if not is_finite(value):
                raise SpaceError(
                    f"the values of the ordinal {self.label!r} must be finite numbers, but got "
                    f"{shown(value)}; a nominal dimension takes any values."
                )
        if self.scale not in ("rank", "linear", "log"):
            raise SpaceError(f"scale must be rank, linear or log, but got {self.scale!r}.")
        if self.scale == "log" and self.values[0] <= 0:
            raise SpaceError(
                f"the values of {self.label!r} must be positive with scale='log', "
                f"but got {self.values[0]!r}."
            )
        if not self._uniform and len(self.values) > _MAX_GRID:
            raise SpaceError(
                f"{self.label!r} must have at most {_MAX_GRID} values unless evenly spaced, "
                f"but got {len(self.values)}."
            )

    @property
    def _uniform(self) -> bool:
        return self.scale == "rank" or (self.scale == "linear" and isinstance(self.values, range))

    @cached_property
    def grid(self) -> Array:
        """(size,) the code of each value."""
        n = len(self.values)
        if n == 1:
            return np.array([0.5])
        if self._uniform:
            return np.linspace(0.0, 1.0, n)
        v = np.asarray(self.values, dtype=np.float64)
        if self.scale == "log":
            v = np.log(v)
        elif max(abs(v[0]), abs(v[-1])) > _LARGE:  # the span may be too large for a float
            v = v / 4
        return np.asarray((v - v[0]) / (v[-1] - v[0]))

    @property
    def width(self) -> int:
        return 1

    @property
    def default(self) -> float:
        return float((len(self.values) - 1) // 2)

    def encode(self, points: Array) -> Array:
        n = len(self.values)
        if self._uniform and n > 1:
            return (points / (n - 1))[:, None]
        return self.grid[points.astype(np.int64)][:, None]

    def decode(self, codes: Array) -> Array:
        n = len(self.values)
        if n == 1:
            return np.zeros(len(codes))
        column = np.clip(codes[:, 0], 0.0, 1.0)
        if self._uniform:
            return np.rint(column * (n - 1))
        midpoints = (self.grid[1:] + self.grid[:-1]) / 2
        return np.searchsorted(midpoints, column).astype(np.float64)

    def neighbours(self, point: float) -> list[float]:
        return [p for p in (point - 1, point + 1) if 0 <= p < len(self.values)]


@dataclass(frozen=True)
class Nominal(_Listed):
    """One value out of an unordered list, shown one-hot."""

    @property
    def width(self) -> int:
        return len(self.values)

    @property
    def default(self) -> float:
        return 0.0

    def code_std(self) -> Array:
        share = 1 / len(self.values)
        return np.full(len(self.values), math.sqrt(share * (1 - share)))

    def encode(self, points: Array) -> Array:
        rows: Array = np.eye(len(self.values))[points.astype(np.int64)]
        return rows

    def decode(self, codes: Array) -> Array:
        chosen: Array = codes.argmax(axis=1).astype(np.float64)
        return chosen

    def neighbours(self, point: float) -> list[float]:
        return [float(p) for p in range(len(self.values)) if p != point]


@dataclass(frozen=True)
class Subset(_Listed):
    """Several values out of a list, shown as one 0/1 column each; a sample holds them as a list.

    Args:
        label: Name of the dimension.
        values: The candidates, at most 52.
        n_chosen: How many are taken; None for any number, none included.

    Raises:
        SpaceError: There are too many candidates, or fewer than `n_chosen`.
    """

    n_chosen: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.values) > _MAX_SUBSET:
            raise SpaceError(
                f"the subset {self.label!r} must have at most {_MAX_SUBSET} candidates, "
                f"but got {len(self.values)}."
            )
        if self.n_chosen is not None and not 0 <= self.n_chosen <= len(self.values):
            raise SpaceError(
                f"n_chosen of {self.label!r} must lie in 0..{len(self.values)}, "
                f"but got {self.n_chosen}."
            )

    @property
    def width(self) -> int:
        return len(self.values)

    @property
    def size(self) -> int | float:
        n = len(self.values)
        return 2**n if self.n_chosen is None else math.comb(n, self.n_chosen)

    @property
    def default(self) -> float:
        return float(2 ** (self.n_chosen or 0) - 1)

    def point(self, value: Value) -> float:
        chosen = [self._index(v) for v in value]
        if len(set(chosen)) != len(chosen) or self.n_chosen not in (None, len(chosen)):
            raise ValueError(value)
        return float(sum(1 << i for i in chosen))

    def value(self, point: float) -> Value:
        mask = int(point)
        return [v for i, v in enumerate(self.values) if mask >> i & 1]

    def values_of(self, points: Array) -> list[Value]:
        masks = points.tolist()
        chosen = {mask: self.value(mask) for mask in set(masks)}
        return [chosen[mask].copy() for mask in masks]

    def points_of(self, values: Sequence[Value]) -> list[float]:
        known: dict[tuple[Value, ...], float] = {}
        try:
            chosen = [tuple(v) for v in values]
            for key in set(chosen):
                known[key] = self.point(key)
            return [known[key] for key in chosen]
        except (KeyError, TypeError, ValueError):
            return super().points_of(values)  # which names the stranger, or knows lists as values

    def near(self, code: Array, limit: int = 1000) -> Array:
        return np.unique(np.append(self.options(limit), self.decode(code[None])))

    def _masks(self, chosen: NDArray[np.bool_]) -> Array:
        return np.asarray(chosen @ (2.0 ** np.arange(len(self.values))))

    def encode(self, points: Array) -> Array:
        bits = np.arange(len(self.values))
        return (points.astype(np.int64)[:, None] >> bits & 1).astype(np.float64)

    def decode(self, codes: Array) -> Array:
        if self.n_chosen is None:
            return self._masks(codes > 0.5)
        order = np.argsort(-codes, axis=1, kind="stable")[:, : self.n_chosen]
        chosen = np.zeros(codes.shape, dtype=np.bool_)
        np.put_along_axis(chosen, order, True, axis=1)
        return self._masks(chosen)

    def random(self, n: int, rng: np.random.Generator) -> Array:
        return self.decode(rng.random((n, len(self.values))))

    def neighbours(self, point: float) -> list[float]:
        mask, n = int(point), len(self.values)
        if self.n_chosen is None:
            return [float(mask ^ 1 << i) for i in range(n)]
        inside = [i for i in range(n) if mask >> i & 1]
        outside = [i for i in range(n) if not mask >> i & 1]
        return [float(mask ^ 1 << i ^ 1 << j) for i in inside for j in outside]

    def options(self, limit: int) -> Array:
        if self.size <= limit:
            if self.n_chosen is None:
                return np.arange(self.size, dtype=np.float64)
            chosen = combinations(range(len(self.values)), self.n_chosen)
            return np.array(sorted(float(sum(1 << i for i in c)) for c in chosen))
        return np.unique(self.random(limit, np.random.default_rng(0)))

    def describe(self) -> str:
        count = "any number" if self.n_chosen is None else str(self.n_chosen)
        return f"lists of {count} out of {super().describe()}"
