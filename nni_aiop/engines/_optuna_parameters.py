"""One dimension of a space as one parameter of Optuna, its values written and read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from numbers import Integral
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from nni_aiop.engines._ordered import is_number, is_ordered
from nni_aiop.errors import SpaceError
from nni_aiop.spaces import CodeSpace, Continuous, Dimension, Nominal, Ordinal, Subset, Value

__all__ = ["_MAX_GRID", "Parameter", "_plain", "_same", "parameters_of"]

_MAX_GRID = 100_000  # a float with more steps is continuous; its values are rounded when suggested


_MAX_ORDERED = 100  # unevenly spaced numbers up to this many are choices, more are numbered


_MAX_CHOICES = 1_000  # a subset with more combinations is numbered instead of listed


_TOLERANCE = 1e-9  # of a float that was computed as low + k * step


@dataclass(frozen=True)
class Parameter:
    """How one dimension stands in Optuna: its distribution, and its values as parameters."""

    dimension: Dimension
    distribution: BaseDistribution
    to_param: Callable[[Value], Any]
    to_value: Callable[[Any], Value]

    def write(self, value: Value, distribution: BaseDistribution) -> Any:
        """The value as a parameter of `distribution`, which may be the objective's own.

        Numbers are moved into the distribution's range and onto its steps.

        Raises:
            LookupError: The distribution has no such value.
        """
        if distribution == self.distribution:
            return self.to_param(value)
        if isinstance(distribution, CategoricalDistribution):
            for choice in distribution.choices:
                if _same(choice, value):
                    return choice
            raise LookupError(value)
        if not is_number(value):
            raise LookupError(value)
        return nearest(distribution, float(value))

    def read(self, param: Any, distribution: BaseDistribution | None = None) -> Value:
        """The value of a parameter that was suggested from `distribution` (None: unknown).

        Raises:
            LookupError: The dimension has no such value.
        """
        if distribution in (None, self.distribution) and self._is_ours(param):
            return self.to_value(param)
        # The objective suggested the value itself, or an enqueued trial spells it out.
        return _natural(self.dimension, param)

    def _is_ours(self, param: Any) -> bool:
        try:
            return self.distribution._contains(self.distribution.to_internal_repr(param))
        except (ValueError, TypeError):
            return False


def _plain(value: Value) -> Value:
    """The value with lists as tuples and one NaN; storages give back lists, and NaN anew."""
    if isinstance(value, (list, tuple)):
        return tuple(_plain(v) for v in value)
    if isinstance(value, float) and math.isnan(value):
        return math.nan
    return value


def _same(a: Value, b: Value) -> bool:
    """Whether two values are the same; `True` is not 1, as it is for Python."""
    if isinstance(a, bool) != isinstance(b, bool):
        return False
    a, b = _plain(a), _plain(b)
    return a is b or bool(a == b)


def nearest(distribution: BaseDistribution, number: float) -> float | int:
    """The number of the distribution that is nearest to `number`."""
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high, step = distribution.low, distribution.high, distribution.step
    number = min(max(number, low), high)
    if step is not None:
        number = min(low + round((number - low) / step) * step, high)
    return round(number) if isinstance(distribution, IntDistribution) else float(number)


def _natural(dimension: Dimension, param: Any) -> Value:
    """The value that a parameter spells out itself."""
    if isinstance(dimension, Continuous):
        if not is_number(param) or not dimension.low <= param <= dimension.high:
            raise LookupError(param)
        return float(param)
    values: Sequence[Value] = getattr(dimension, "values", ())
    if isinstance(dimension, Ordinal):
        if not is_number(param) or math.isnan(param):
            raise LookupError(param)
        if isinstance(values, range):
            index = round((param - values.start) / values.step)
        else:
            index = int(np.searchsorted(values, param - _TOLERANCE * max(1.0, abs(param))))
        found = values[min(max(index, 0), len(values) - 1)]
        if not math.isclose(found, param, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
            raise LookupError(param)
        return found
    if isinstance(dimension, Subset):
        try:
            return dimension.value(dimension.point(param))
        except (KeyError, TypeError, ValueError) as err:
            raise LookupError(param) from err
    for value in values:
        if _same(value, param):
            return value
    raise LookupError(param)


def _as_is(value: Value) -> Value:
    return value.item() if isinstance(value, np.generic) else value


def _parameter(dimension: Dimension) -> Parameter:
    if isinstance(dimension, Continuous):
        return _continuous(dimension)
    if isinstance(dimension, Ordinal):
        return _ordinal(dimension)
    if isinstance(dimension, Subset):
        return _subset(dimension)
    if isinstance(dimension, Nominal):
        return _nominal(dimension)
    raise SpaceError(
        f"{dimension.label!r} must be ordinal, nominal, continuous or a subset, "
        f"but is a {type(dimension).__name__}."
    )


def _continuous(d: Continuous) -> Parameter:
    if d.ppf is None:
        return Parameter(d, FloatDistribution(d.low, d.high, log=d.log), float, float)
    # Optuna has no distribution of this shape: the parameter is the quantile.
    return Parameter(
        d,
        FloatDistribution(0.0, 1.0),
        lambda value: float(d.encode(np.array([value], dtype=np.float64))[0, 0]),
        lambda quantile: float(d.decode(np.array([[quantile]], dtype=np.float64))[0]),
    )


def _ordinal(d: Ordinal) -> Parameter:
    values = d.values
    if all(isinstance(v, Integral) for v in (values[0], values[-1])) and _evenly_spaced(values):
        step = int(values[1] - values[0]) if len(values) > 1 else 1
        log = d.scale == "log" and step == 1 and values[0] >= 1
        integers = IntDistribution(int(values[0]), int(values[-1]), log=log, step=step)
        return Parameter(d, integers, int, lambda p: _natural(d, p))
    if all(isinstance(v, float) for v in (values[0], values[-1])) and _evenly_spaced(values):
        low, high = float(values[0]), float(values[-1])
        first, last = Decimal(str(low)), Decimal(str(high))
        width = Decimal(str(float(values[1]))) - first if len(values) > 1 else Decimal(1)
        if (last - first) % width == 0:  # else Optuna would move the upper end
            floats = FloatDistribution(low, high, step=float(width))
            return Parameter(d, floats, float, lambda p: _natural(d, p))
    # Increasing choices are read back as ordinal. Other samplers take them for unordered: the price
    # of parameters that say what they are.
    choices = [_as_is(v) for v in values[: _MAX_ORDERED + 1]]
    if len(values) <= _MAX_ORDERED and all(isinstance(v, (int, float)) for v in choices):
        return Parameter(d, CategoricalDistribution(choices), _as_is, lambda p: _natural(d, p))
    return Parameter(
        d,
        IntDistribution(0, len(values) - 1),
        lambda value: int(d.point(value)),
        lambda rank: d.value(float(rank)),
    )


def _evenly_spaced(values: Sequence[Value]) -> bool:
    if isinstance(values, range) or len(values) <= 2:
        return True
    kind = Integral if isinstance(values[0], Integral) else float
    if not all(isinstance(v, kind) and not isinstance(v, bool) for v in values):
        return False
    step = (values[-1] - values[0]) / (len(values) - 1)
    return all(
        math.isclose(b - a, step, rel_tol=_TOLERANCE, abs_tol=0.0) for a, b in pairwise(values)
    )


def _nominal(d: Nominal) -> Parameter:
    values = [_as_is(v) for v in d.values]
    plain = all(v is None or isinstance(v, (bool, int, float, str)) for v in values)
    plain = plain and not any(isinstance(v, float) and math.isnan(v) for v in values)
    if plain and len(set(values)) == len(values):
        # Increasing numbers would be read back as ordinal.
        choices = values[::-1] if is_ordered(values) else values
        return Parameter(d, CategoricalDistribution(choices), _as_is, lambda p: _natural(d, p))
    return _listed(d, [str(i) for i in range(len(values))], [float(i) for i in range(len(values))])


def _listed(d: Dimension, names: list[str], points: list[float]) -> Parameter:
    """Choices by name: text is never taken for numbers, and every storage keeps it as it is."""
    name_of = dict(zip(points, names, strict=True))
    point_of = dict(zip(names, points, strict=True))
    return Parameter(
        d,
        CategoricalDistribution(names),
        lambda value: name_of[float(d.point(value))],
        lambda name: d.value(point_of[name]),
    )


def _subset(d: Subset) -> Parameter:
    if d.size <= _MAX_CHOICES:
        points = d.options(_MAX_CHOICES).tolist()
        names = ["+".join(map(str, _bits(int(p)))) or "none" for p in points]
        return _listed(d, names, points)
    n_chosen = d.n_chosen
    if n_chosen is None:
        return Parameter(
            d,
            IntDistribution(0, int(d.size) - 1),
            lambda value: int(d.point(value)),
            lambda mask: d.value(float(mask)),
        )
    return Parameter(
        d,
        IntDistribution(0, int(d.size) - 1),
        lambda value: _rank(int(d.point(value))),
        lambda rank: d.value(float(_unrank(int(rank), n_chosen))),
    )


def _bits(mask: int) -> list[int]:
    return [i for i in range(mask.bit_length()) if mask >> i & 1]


def _rank(mask: int) -> int:
    """The place of a bit mask among all with as many bits (combinatorial number system)."""
    return sum(math.comb(bit, i + 1) for i, bit in enumerate(_bits(mask)))


def _unrank(rank: int, n_bits: int) -> int:
    mask = 0
    for k in range(n_bits, 0, -1):
        bit = k - 1
        while math.comb(bit + 1, k) <= rank:
            bit += 1
        rank -= math.comb(bit, k)
        mask |= 1 << bit
    return mask


_known_parameters: WeakKeyDictionary[CodeSpace, dict[str, Parameter]] = WeakKeyDictionary()


def parameters_of(space: CodeSpace) -> dict[str, Parameter]:
    """For each label of the space, how it stands in Optuna."""
    known = _known_parameters.get(space)
    if known is None:
        known = {d.label: _parameter(d) for d in space.dimensions}
        _known_parameters[space] = known
    return known
