"""The kinds of dimension that a search space is made of.

Notation: a dimension holds its state as one number, its *point* (the index of the chosen value, the
value itself where continuous, a bit mask for a subset), and shows it to a predictor as `width`
*code* columns in [0, 1].
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import SpaceError

__all__ = ["Array", "Dimension", "Value"]

Value = Any


_LARGEST_LOG = math.log(sys.float_info.max)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Dimension(ABC):
    """One decision of a space."""

    label: str

    @property
    @abstractmethod
    def width(self) -> int:
        """Number of code columns."""

    @property
    @abstractmethod
    def size(self) -> int | float:
        """Number of choices; infinity where continuous."""

    @property
    @abstractmethod
    def default(self) -> float:
        """The point that stands in where the dimension is inactive."""

    @abstractmethod
    def point(self, value: Value) -> float:
        """The point of a value; a stranger raises KeyError, TypeError or ValueError."""

    @abstractmethod
    def value(self, point: float) -> Value:
        """The value of a point."""

    @abstractmethod
    def encode(self, points: Array) -> Array:
        """points: (n,) -> codes: (n, width)."""

    @abstractmethod
    def decode(self, codes: Array) -> Array:
        """codes: (n, width), any real numbers -> the nearest points: (n,)."""

    @abstractmethod
    def random(self, n: int, rng: np.random.Generator) -> Array:
        """(n,) points, uniform over the choices."""

    @abstractmethod
    def neighbours(self, point: float) -> list[float]:
        """Points one step away: the next values where ordered, every other value where not."""

    @abstractmethod
    def options(self, limit: int) -> Array:
        """All points in increasing order; about `limit` of them, evenly spread, if more."""

    def near(self, code: Array, limit: int = 1000) -> Array:
        """About `limit` points (all if fewer) among which is the nearest to a code (width,)."""
        return self.options(limit)

    def describe(self) -> str:
        """The choices in a few words."""
        raise NotImplementedError

    def code_std(self) -> Array:
        """(width,) standard deviation of the code columns under uniform sampling."""
        return np.asarray(self.encode(self.options(1000)).std(axis=0))

    def points_of(self, values: Sequence[Value]) -> list[float]:
        """Points of many values at once.

        Raises:
            SpaceError: A value is not one of the dimension's.
        """
        point = self.point
        try:
            return [point(v) for v in values]
        except (KeyError, TypeError, ValueError):
            pass
        for value in values:
            try:
                point(value)
            except (KeyError, TypeError, ValueError) as err:
                raise SpaceError(
                    f"{self.label!r} must be one of {self.describe()}, but got {value!r}."
                ) from err
        raise AssertionError("unreachable: some value failed above")

    def values_of(self, points: Array) -> list[Value]:
        """Values of many points at once."""
        value = self.value
        return [value(p) for p in points.tolist()]


@dataclass(frozen=True)
class Continuous(Dimension):
    """A real number, shown as one code column.

    Args:
        label: Name of the dimension.
        low: Smallest value (of the middle 99.9 % where `ppf` has infinite tails).
        high: Largest value, likewise.
        log: Whether the code is in proportion to the logarithm.
        ppf: Quantile function from [0, 1] to the value, for other distributions; of an array or
            of a number.
        cdf: Its inverse; both or neither.

    Raises:
        SpaceError: The bounds are not finite and increasing, or not positive with `log`.
    """

    low: float
    high: float
    log: bool = False
    ppf: Callable[[float], float] | None = field(default=None, compare=False)
    cdf: Callable[[float], float] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not (is_finite(self.low) and is_finite(self.high) and self.low <= self.high):
            raise SpaceError(
                f"{self.label!r} must have finite low <= high, "
                f"but got {shown(self.low)}, {shown(self.high)}."
            )
        if max(abs(self.low), abs(self.high)) > 2**53:  # NumPy takes no larger whole numbers
            object.__setattr__(self, "low", float(self.low))
            object.__setattr__(self, "high", float(self.high))
        if self.log and self.low <= 0:
            raise SpaceError(f"{self.label!r} must have low > 0 with log, but got {self.low}.")
        if (self.ppf is None) != (self.cdf is None):
            raise SpaceError(f"{self.label!r} must be given both ppf and cdf, or neither.")

    @property
    def _is_wide(self) -> bool:
        """Whether the span, or the ratio with `log`, is too large for a float, or nearly so."""
        if self.log:
            return math.log(self.high) - math.log(self.low) > _LARGEST_LOG - 10 or self.low < 1e-300
        return not math.isfinite(4 * (self.high / 4 - self.low / 4))

    @property
    def width(self) -> int:
        return 1

    @property
    def size(self) -> int | float:
        return 1 if self.low == self.high else math.inf

    @property
    def default(self) -> float:
        return float(self.decode(np.array([[0.5]]))[0])

    def point(self, value: Value) -> float:
        number = float(value)
        if not self.low <= number <= self.high:
            raise ValueError(number)
        return number

    def value(self, point: float) -> Value:
        return float(point)

    def encode(self, points: Array) -> Array:
        if self.low == self.high:
            return np.full((len(points), 1), 0.5)
        if self.cdf is not None:
            code = _over(self.cdf, points)
        elif self.log:
            if self._is_wide:
                code = (np.log(points) - math.log(self.low)) / (
                    math.log(self.high) - math.log(self.low)
                )
            else:
                code = np.log(points / self.low) / np.log(self.high / self.low)
        elif self._is_wide:
            code = (points / 4 - self.low / 4) / (self.high / 4 - self.low / 4)
        else:
            code = (points - self.low) / (self.high - self.low)
        return np.clip(code, 0.0, 1.0)[:, None]

    def decode(self, codes: Array) -> Array:
        c = np.clip(codes[:, 0], 0.0, 1.0)
        if self.ppf is not None:
            value = _over(self.ppf, c)
        elif self.log:
            if self._is_wide:
                low, high = math.log(self.low), math.log(self.high)
                value = np.exp(np.minimum(low + c * (high - low), _LARGEST_LOG))
            else:
                value = self.low * (self.high / self.low) ** c
        elif self._is_wide:
            value = self.low * (1 - c) + self.high * c
        else:
            value = self.low + c * (self.high - self.low)
        # Twelve digits survive encode -> decode to the bit, so that a value keeps its key.
        value = np.array([float(f"{v:.12g}") for v in value.tolist()], dtype=np.float64)
        return np.clip(value, self.low, self.high)

    def random(self, n: int, rng: np.random.Generator) -> Array:
        return self.decode(rng.random((n, 1)))

    def neighbours(self, point: float) -> list[float]:
        code = self.encode(np.array([point]))[0, 0]
        moved = np.array([[c] for c in (code - 0.05, code + 0.05) if 0.0 <= c <= 1.0])
        return self.decode(moved).tolist() if len(moved) else []

    def options(self, limit: int) -> Array:
        return self.decode(np.linspace(0.0, 1.0, limit)[:, None])

    def near(self, code: Array, limit: int = 1000) -> Array:
        grid = np.append(np.linspace(0.0, 1.0, limit), np.clip(code, 0.0, 1.0))
        return self.decode(grid[:, None])

    def describe(self) -> str:
        return f"[{self.low}, {self.high}]" + (" (log)" if self.log else "")


def is_finite(number: float) -> bool:
    """Whether a number is finite as a float."""
    try:
        return math.isfinite(float(number))
    except OverflowError:  # a whole number of more than 308 digits
        return False


def shown(value: Any) -> str:
    """A value in a sentence."""
    huge = isinstance(value, int) and value.bit_length() > 512
    return f"a whole number of {value.bit_length()} bits" if huge else f"{value!r:.80}"


def _over(function: Callable[[Any], Any], x: Array) -> Array:
    """(n,) a function of each number, called once where it takes arrays."""
    try:
        out = np.asarray(function(x), dtype=np.float64)
    except (TypeError, ValueError):
        out = np.empty(0)
    if out.shape == x.shape:
        return out
    return np.array([function(v) for v in x.tolist()], dtype=np.float64)
