"""The distinct rows of a matrix, also of one that is wide."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["distinct"]

_SORTED = 500_000  # numbers up to which rows are sorted


def distinct(rows: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places (u,) where distinct rows of (n, d) stand first, and the place of each among them (n,).

    They are in the order of the rows, sorted; of many wide rows, whose sorting takes longer than
    all else, in the order in which they come.
    """
    if rows.size <= _SORTED:
        _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        return first, np.ravel(inverse)
    known: dict[bytes, int] = {}
    places = np.empty(len(rows), dtype=np.intp)
    firsts: list[int] = []
    for i, row in enumerate(np.ascontiguousarray(rows) + 0.0):  # -0 is 0
        place = known.setdefault(row.tobytes(), len(known))
        if place == len(firsts):
            firsts.append(i)
        places[i] = place
    return np.array(firsts, dtype=np.intp), places
