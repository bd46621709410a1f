"""Which results keep the limits, which nothing else is better than, and what metrics are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["front_of", "pareto_front", "title_of", "within"]

Column = NDArray[np.float64]


def within(
    limits: Mapping[str, float], measured: Mapping[str, Column], n: int
) -> NDArray[np.bool_]:
    """(n,) True where every limit is kept; what was not measured keeps none."""
    keeps = np.ones(n, dtype=bool)
    for name, limit in limits.items():
        keeps &= measured[name] <= limit if name in measured else False
    return keeps


def front_of(
    gains: Sequence[Column], cost: Column | None, feasible: NDArray[np.bool_]
) -> list[int]:
    """Places of the Pareto front of what is to be large and a cost, among those within limits."""
    values = np.stack([*gains, *([] if cost is None else [-cost])], axis=1)
    values[~feasible] = np.nan
    return [int(i) for i in np.flatnonzero(pareto_front(values))]


def title_of(metric: str, metrics: Mapping[str, Column]) -> str:
    """The metric's name; for NNI's `default` that of the metric which it repeats, if any."""
    if metric == "default" and len(metrics[metric]):
        for name, column in metrics.items():
            if name != metric and np.array_equal(column, metrics[metric], equal_nan=True):
                return name
    return metric


def pareto_front(values: ArrayLike) -> NDArray[np.bool_]:
    """(n,) True where no other row is at least as good everywhere and better somewhere.

    Args:
        values: (n, m), larger is better; a row with a NaN is never on the front.
    """
    v = np.asarray(values, dtype=np.float64)
    front = np.zeros(len(v), bool)
    known = np.flatnonzero(~np.isnan(v).any(axis=1))
    if not len(known):
        return front
    # From best to worst by the first column, ties by the next: what comes later dominates nothing.
    points, where = np.unique(-v[known], axis=0, return_inverse=True)
    if points.shape[1] == 2:
        # Each must be better in the second than all that are better in the first.
        best = np.minimum.accumulate(points[:, 1])
        kept = np.append(True, points[1:, 1] < best[:-1])
    else:
        kept = np.zeros(len(points), bool)
        for place, point in enumerate(points):
            kept[place] = not (points[:place][kept[:place]] <= point).all(axis=1).any()
    front[known] = kept[np.ravel(where)]
    return front
