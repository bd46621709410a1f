"""Targets of any size as numbers that a predictor can reckon with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["center_and_scale", "moderate", "moderated", "unit_of"]

Array = NDArray[np.float64]

_FAR = 1e6  # median deviations from the median beyond which a value says only that it is far
_KEPT = 10.0  # where such a value is set, in median deviations
_LARGE = 1e100  # beyond it squares overflow


def unit_of(values: Array, large: float = _LARGE) -> float:
    """A power of two by which finite numbers are divided so that their squares are finite; often 1.

    Example:
        >>> unit_of(np.array([1.0, -3.0])), unit_of(np.array([1e300])) > 1e199
        (1.0, True)
    """
    largest = float(np.abs(values).max(initial=0.0))
    return 1.0 if largest <= large else math.ldexp(1.0, math.frexp(largest)[1] - 1)


def moderate(values: Array) -> Array:
    """(n,) the values, of which those that are far beyond all others are brought near.

    Diverged trainings report 1e300. Beside it all other results would look the same. Where a value
    is more than a million median deviations from the median, both of the different values, whatever
    is beyond ten of them is set to ten. Other targets stay as they are.

    Example:
        >>> moderate(np.array([1.0, 2.0, 4.0, 5.0, 1e300])).tolist()
        [1.0, 2.0, 4.0, 5.0, 24.0]
    """
    known = values[np.isfinite(values)]
    if len(known) < 3:
        return values
    different = np.unique(known)
    middle = float(different[(len(different) - 1) // 2])
    # In halves, as the distance of two floats may be too large for one.
    halves = np.sort(np.abs(different / 2 - middle / 2))
    half = float(halves[len(halves) // 2])
    if half == 0 or not float(halves[-1]) > _FAR * half:
        return values
    reach = 2 * _KEPT * half
    return np.asarray(np.clip(values, middle - reach, middle + reach))


def center_and_scale(y: Array) -> tuple[Array, Array]:
    """(m,) means and standard deviations of (n, m) finite numbers; 0 where a column is constant."""
    units = np.array([unit_of(column) for column in y.T])
    z = y / units
    center = z.mean(axis=0)
    # Rounding must not pass for spread where all targets are the same.
    spread = np.where(np.ptp(z, axis=0) > 0, z.std(axis=0), 0.0)
    scale = np.where(spread > 1e-12 * np.abs(center), spread, 0.0)
    return center * units, scale * units


def moderated(rows: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Metrics in numbers to reckon with: what diverged is brought near, huge units are divided."""
    found = [dict(row) for row in rows]
    for name in {name for row in rows for name in row}:
        places = [i for i, row in enumerate(rows) if name in row]
        values = moderate(np.array([rows[i][name] for i in places]))
        values = values / unit_of(values, large=1e30)
        for i, value in zip(places, values.tolist(), strict=True):
            found[i][name] = value
    return found
