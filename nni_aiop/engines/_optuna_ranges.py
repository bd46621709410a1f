"""The range of a label whose range varies from trial to trial."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

__all__ = ["current", "united"]


def current(seen: Sequence[BaseDistribution]) -> BaseDistribution:
    """The last distribution, where each was there for a while and then gone for good; else all
    united.

    A range that depends on an earlier value comes and goes.
    """
    runs = [(d, len(list(same))) for d, same in itertools.groupby(seen)]
    lasting = all(length > 1 for _, length in runs)
    returning = any(d == other for (d, _), (other, _) in itertools.combinations(runs, 2))
    return runs[-1][0] if lasting and not returning else united(seen)


def united(seen: Iterable[BaseDistribution]) -> BaseDistribution:
    """A distribution with the values of all."""
    out: BaseDistribution | None = None
    for distribution in seen:
        out = distribution if out is None else _merged(out, distribution)
    assert out is not None
    return out


def _merged(a: BaseDistribution, b: BaseDistribution) -> BaseDistribution:
    """A distribution with the values of both (within a study choices never change)."""
    if a == b or isinstance(a, CategoricalDistribution) or type(a) is not type(b):
        return a
    if isinstance(a, IntDistribution) and isinstance(b, IntDistribution):
        low, high = min(a.low, b.low), max(a.high, b.high)
        step = 1 if a.log else math.gcd(a.step, b.step, a.low - b.low, a.high - b.high)
        return IntDistribution(low, high, log=a.log, step=step or 1)
    assert isinstance(a, FloatDistribution) and isinstance(b, FloatDistribution)
    low_, high_ = min(a.low, b.low), max(a.high, b.high)
    same_grid = a.step == b.step and a.step is not None and _multiple(a.low - b.low, a.step)
    return FloatDistribution(low_, high_, log=a.log, step=a.step if same_grid else None)


def _multiple(number: float, step: float) -> bool:
    return math.isclose(number / step, round(number / step), abs_tol=1e-8)
