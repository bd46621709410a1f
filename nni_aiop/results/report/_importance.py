"""How much each dimension matters to a metric, as a predictor that learned from the history has it.

Notation: f is a function of independent dimensions, each uniform over its choices; V its variance;
A and B are two independent samples of (N, d) points, A_i is A with column i of B. Of each dimension

    total_i = E(f(A) - f(A_i))^2 / 2 / V         what is left of V where all others are known
    alone_i = 1 - E(f(B) - f(A_i))^2 / 2 / V     the part that knowing it alone explains

are estimated as Jansen (1999) does (Saltelli et al. 2010, table 2, rows f and c). f is not known:
it is drawn from the posterior of a Gaussian process again and again, and each draw has indices of
its own. What is shown is their median and the middle 80 % of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nni_aiop.spaces import CodeSpace, Continuous, Subset

if TYPE_CHECKING:
    from nni_aiop.spaces import Dimension

__all__ = ["FEWEST", "LEVEL", "Importance", "importance_of"]

FEWEST = 8
"""Different evaluations without which nothing is said."""

LEVEL = 0.8
"""Probability that an interval holds, by the predictor's own lights."""

_ROWS = 300  # that are learned from, drawn at random where there are more
_WIDE = 400  # columns of a code, beyond which half as many rows are learned from
_DRAWS = 64  # functions from the posterior
_PLACES = 30_000  # points at which they are looked at, about
_MOST, _LEAST = 512, 64  # of N


@dataclass(frozen=True)
class Importance:
    """What matters to one metric.

    Attributes:
        metric: Its name.
        rows: Number of evaluations that were learned from.
        explained: The part of the metric's variance over them that is predicted from the others.
        labels: Of the dimensions, the one that matters most first.
        total: (d, 3) low end, median and high end of the total effect.
        alone: (d, 3) the same of the effect without interactions.
    """

    metric: str
    rows: int
    explained: float
    labels: tuple[str, ...]
    total: NDArray[np.float64]
    alone: NDArray[np.float64]


def importance_of(
    space: CodeSpace, points: NDArray[np.float64], values: NDArray[np.float64], metric: str
) -> Importance | str:
    """What matters to a metric, or a sentence that says why that cannot be told.

    Args:
        space: The space of the points; constraints of it are not looked at.
        points: (n, d) points that were evaluated.
        values: (n,) the metric, NaN where it is not known.
        metric: Its name.
    """
    known = np.isfinite(values)
    settled = space.canonical_points(points[known])
    measured = values[known]
    different = len(np.unique(settled, axis=0))
    if different < FEWEST:
        return (
            f"At least {FEWEST} different evaluations with a number must be there to tell what "
            f"matters; there are {different}."
        )
    if np.ptp(measured) <= 1e-12 * np.abs(measured).max():
        return f"{metric} was the same everywhere: nothing that was tried matters to it."
    rng = np.random.default_rng(0)
    rows = _ROWS if space.width <= _WIDE else _ROWS // 2
    if len(settled) > rows:
        kept = np.sort(rng.choice(len(settled), rows, replace=False))
        settled, measured = settled[kept], measured[kept]
    try:
        return _indices(space, settled, measured, metric, rng)
    except (ArithmeticError, MemoryError, RuntimeError, ValueError) as err:
        return f"No predictor could be fitted to the evaluations: {' '.join(str(err).split())}"


def _indices(
    space: CodeSpace,
    points: NDArray[np.float64],
    values: NDArray[np.float64],
    metric: str,
    rng: np.random.Generator,
) -> Importance | str:
    from nni_aiop.predictors import search_predictor
    from nni_aiop.predictors._gp_draws import explained_variance, posterior_draws

    predictor = search_predictor(space)
    predictor.fit(space.encode_points(points), {metric: values})
    d = len(space)
    n = _MOST
    while n > _LEAST and n * (d + 2) > _PLACES:
        n //= 2
    first, second = _spread(space.dimensions, n, rng)
    parts = [first, second]
    for i in range(d):
        mixed = first.copy()
        mixed[:, i] = second[:, i]
        parts.append(mixed)
    codes = space.encode_points(space.canonical_points(np.concatenate(parts)))
    drawn = posterior_draws(predictor, codes, _DRAWS).reshape(_DRAWS, d + 2, n)
    a, b, changed = drawn[:, 0], drawn[:, 1], drawn[:, 2:]
    variance = drawn[:, :2].reshape(_DRAWS, -1).var(axis=1)[:, None]
    if not (variance > 0).all():
        return f"The predictor holds {metric} to be the same everywhere."
    total = np.square(a[:, None] - changed).mean(axis=2) / 2 / variance
    alone = 1 - np.square(b[:, None] - changed).mean(axis=2) / 2 / variance
    # Nothing explains less than nothing, or more than all it does; that is the error of N points.
    total = np.clip(total, 0.0, 1.0)
    found = [_interval(total), _interval(np.clip(alone, 0.0, total))]
    order = np.argsort(-found[0][:, 1], kind="stable")
    return Importance(
        metric,
        len(points),
        explained_variance(predictor),
        tuple(space.labels[i] for i in order),
        found[0][order],
        found[1][order],
    )


def _interval(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """(d, 3) low end, median and high end of (draws, d)."""
    ends = (1 - LEVEL) / 2
    return np.quantile(draws, [ends, 0.5, 1 - ends], axis=0).T


def _spread(
    dimensions: Sequence[Dimension], n: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two samples of (n, d) points, uniform and more even than chance."""
    from scipy.stats import qmc

    d = len(dimensions)
    even = (
        qmc.Sobol(2 * d, seed=rng).random(n)
        if 2 * d <= qmc.Sobol.MAXDIM
        else rng.random((n, 2 * d))
    )
    found = np.empty((n, 2 * d))
    for j in range(2 * d):
        dimension, column = dimensions[j % d], even[:, j]
        if isinstance(dimension, Continuous):
            found[:, j] = dimension.decode(column[:, None])
        elif isinstance(dimension, Subset):
            found[:, j] = dimension.random(n, rng)
        else:
            found[:, j] = np.minimum(np.floor(column * dimension.size), dimension.size - 1)
    return found[:, :d], found[:, d:]
