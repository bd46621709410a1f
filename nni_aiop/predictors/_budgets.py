"""Budgets: levels at which a generator is trained, and what lies between them.

Source: Guo et al., "Pareto-aware Neural Architecture Generation for Diverse Computational Budgets",
CVPR 2022, section 3.1.2. Several costs at once, which the paper does not have, are a row of levels
for each cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nni_aiop.errors import SpaceError

__all__ = ["Array", "BudgetGrid"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class BudgetGrid:
    """K trained budgets of each of c costs.

    Args:
        levels: From each cost's name to its K increasing budgets, in the cost's unit. No cost at
            all stands for a search without a budget.

    Raises:
        ValueError: Levels are not positive, not increasing, or not as many for each cost.

    Example:
        >>> grid = BudgetGrid({"latency_ms": (20.0, 40.0, 60.0)})
        >>> grid.weights([[30.0]]).tolist()
        [[[0.5, 0.5, 0.0]]]
    """

    levels: Mapping[str, Sequence[float]]

    def __post_init__(self) -> None:
        kept = {name: tuple(float(v) for v in row) for name, row in self.levels.items()}
        object.__setattr__(self, "levels", kept)
        if len({len(row) for row in kept.values()}) > 1:
            raise ValueError(f"each cost must have as many levels, but got {kept}.")
        for name, row in kept.items():
            if not row or row[0] <= 0 or not all(map(math.isfinite, row)):
                raise ValueError(f"levels of {name} must be positive numbers, but got {row}.")
            if any(high <= low for low, high in pairwise(row)):
                raise ValueError(f"levels of {name} must increase, but got {row}.")

    @classmethod
    def spread(
        cls,
        costs: Mapping[str, ArrayLike],
        k: int = 10,
        *,
        low: float = 0.02,
        high: float = 0.98,
    ) -> BudgetGrid:
        """`k` budgets of each cost, evenly spaced between two quantiles of what it was.

        Args:
            costs: (n,) costs of architectures, by name.
            k: Number of levels; one is the middle.
            low: Quantile of the lowest level.
            high: Quantile of the highest level.

        Raises:
            ValueError: k is below 1, or a cost is not positive or always the same.
        """
        if k < 1 or not 0 <= low < high <= 1:
            raise ValueError(
                f"k >= 1 and 0 <= low < high <= 1 must hold, but got {k}, {low}, {high}."
            )
        levels = {}
        for name, values in costs.items():
            given = np.asarray(values, dtype=np.float64)
            if not len(given) or not np.isfinite(given).all():
                raise ValueError(f"costs must be finite numbers, but {name} has none or others.")
            first, last = np.quantile(given, [low, high])
            if k > 1 and not first < last:
                raise ValueError(
                    f"a cost must differ between architectures to have {k} budgets, "
                    f"but {name} is {first:.6g} from its {low:.1%} to its {high:.1%} quantile."
                )
            levels[name] = np.linspace(first, last, k) if k > 1 else np.array([(first + last) / 2])
        return cls({name: tuple(row.tolist()) for name, row in levels.items()})

    @property
    def names(self) -> tuple[str, ...]:
        """The costs, in the order of the columns of budget vectors."""
        return tuple(self.levels)

    @property
    def k(self) -> int:
        """Number of levels of each cost."""
        return len(next(iter(self.levels.values()), (0.0,)))

    @property
    def array(self) -> Array:
        """(K, c) the levels; row k holds the k-th budget of each cost."""
        rows = [self.levels[name] for name in self.names]
        return np.array(rows, dtype=np.float64).reshape(len(rows), self.k).T

    def vector(self, budget: Mapping[str, float] | float) -> Array:
        """(c,) the budgets of each cost; a number where there is one cost.

        Raises:
            SpaceError: A cost is missing, unknown, or has a budget that is not a positive number.
        """
        if not isinstance(budget, Mapping):
            budget = dict.fromkeys(self.names[:1], budget)
        if set(budget) != set(self.names):
            raise SpaceError(
                f"a budget must name {', '.join(self.names) or 'no cost'}, "
                f"but got {', '.join(budget) or 'none'}."
            )
        for name, value in budget.items():
            if not (math.isfinite(value) and value > 0):
                raise SpaceError(
                    f"the budget of {name} must be a positive number, but got {value}."
                )
        return np.array([float(budget[name]) for name in self.names])

    def outside(self, budget: ArrayLike) -> str | None:
        """One sentence on the first of (c,) budgets that no level encloses, or None."""
        for name, value in zip(self.names, np.asarray(budget).tolist(), strict=True):
            first, last = self.levels[name][0], self.levels[name][-1]
            if not first <= value <= last:
                return (
                    f"the budget of {name} must lie in the trained range from {first:.6g} "
                    f"to {last:.6g}, but got {value:.6g}."
                )
        return None

    def weights(self, budgets: ArrayLike) -> Array:
        """(n, c, K) weights of the levels in the linear interpolation of (n, c) budgets.

        Those of two adjacent levels are xi = (B2 - B) / (B2 - B1) and 1 - xi; beyond the ends the
        last level has all.
        """
        b = np.atleast_2d(np.asarray(budgets, dtype=np.float64))
        out = np.zeros((*b.shape, self.k))
        for i, name in enumerate(self.names):
            place = np.interp(b[:, i], self.levels[name], np.arange(self.k))
            below = np.minimum(place.astype(np.int64), max(self.k - 2, 0))
            rows = np.arange(len(b))
            out[rows, i, below] = 1 - (place - below)
            if self.k > 1:
                out[rows, i, below + 1] = place - below
        return out

    def draws(self, n: int, rng: np.random.Generator) -> Array:
        """(n * K, c) trained budgets, `n` of each level of the first cost.

        The other costs' levels are drawn, so that a generator sees budgets that bind and that do
        not.
        """
        array = self.array
        first = np.repeat(np.arange(self.k), n)
        columns = [first] + [rng.permutation(first) for _ in self.names[1:]]
        picked = [array[rows, i] for i, rows in enumerate(columns[: len(self.names)])]
        return np.stack(picked, axis=1) if picked else np.zeros((len(first), 0))
