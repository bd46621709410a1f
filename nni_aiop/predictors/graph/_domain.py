"""How far a graph is from those that a predictor was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nni_aiop.errors import FileFormatError

__all__ = ["Domain"]

Array = NDArray[np.float64]

# Columns are logarithms on one scale (`GLOBAL_COLUMNS`): what never varied may vary by this much.
_LEAST_SPREAD = 0.05
_KEPT = 500
_QUANTILE = 0.95
_MARGIN = 2.0


@dataclass(frozen=True)
class Domain:
    """Distance to the nearest known graph, by standardised global features.

    Attributes:
        known: (k, u) standardised features of known graphs, at most 500 of them.
        center: (u,) means of the columns.
        spread: (u,) their standard deviations, or a little more.
        limit: Twice the distance that 95 % of the known graphs keep from their nearest neighbour;
            with groups, the distance that 95 % of them keep from the nearest of another group.
    """

    known: Array
    center: Array
    spread: Array
    limit: float

    @classmethod
    def fit(cls, features: ArrayLike, groups: ArrayLike | None = None) -> Domain:
        """The domain of graphs with global features (n, u).

        Args:
            features: (n, u).
            groups: (n,) names, such as families of networks: then 95 % of the networks of a group
                that is not known are inside, as far as the known groups tell.

        Raises:
            ValueError: There are fewer than 2 graphs, or groups.
        """
        rows = np.asarray(features, np.float64)
        if rows.ndim != 2 or len(rows) < 2:
            raise ValueError(f"a domain must have 2 graphs or more, but got {rows.shape}.")
        center = rows.mean(axis=0)
        spread = np.maximum(rows.std(axis=0), _LEAST_SPREAD)
        places = np.random.default_rng(0).permutation(len(rows))[:_KEPT]
        known = (rows[np.sort(places)] - center) / spread
        between = _distances(known, known)
        if groups is None:
            np.fill_diagonal(between, np.inf)
            margin = _MARGIN
        else:
            names = np.asarray(groups)
            if names.shape != rows.shape[:1] or len(np.unique(names)) < 2:
                raise ValueError(
                    f"groups must be 2 or more, in shape ({len(rows)},), but got {names.shape} "
                    f"with {len(np.unique(names))} groups."
                )
            names = names[np.sort(places)]
            between[names[:, None] == names] = np.inf
            margin = 1.0
        limit = margin * float(np.quantile(between.min(axis=1), _QUANTILE))
        # Copies of one network would leave no room at all.
        return cls(known, center, spread, max(limit, 1e-3))

    def distance(self, features: ArrayLike) -> Array:
        """(n,) distances of graphs with global features (n, u); beyond 1 they are outside."""
        rows = (np.asarray(features, np.float64) - self.center) / self.spread
        return np.asarray(_distances(rows, self.known).min(axis=1) / self.limit)

    def to_arrays(self) -> dict[str, Array]:
        """All of it, for a safetensors file."""
        return {
            "known": self.known,
            "center": self.center,
            "spread": self.spread,
            "limit": np.array([self.limit]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Domain:
        """The domain that `to_arrays` described.

        Raises:
            FileFormatError: An array is missing, or has a shape or a number that it cannot have.
        """
        try:
            known, center, spread = (arrays[name] for name in ("known", "center", "spread"))
            (limit,) = arrays["limit"]
        except (KeyError, TypeError, ValueError) as err:
            raise FileFormatError(f"a domain must be whole, but lacks {err}.") from err
        fits = (
            known.ndim == 2 and len(known) > 0 and center.shape == spread.shape == known.shape[1:]
        )
        if not (fits and (spread > 0).all() and limit > 0):
            raise FileFormatError(
                "a domain must be rows with a center, positive spreads and a positive limit, "
                f"but has shapes {known.shape}, {center.shape}, {spread.shape} and {limit:g}."
            )
        return cls(known, center, spread, float(limit))


def _distances(a: Array, b: Array) -> Array:
    """(n, m) root mean square differences of rows."""
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squares, 0.0) / a.shape[1]))
