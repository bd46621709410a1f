"""Which results nothing else is better than."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["pareto_front"]


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
