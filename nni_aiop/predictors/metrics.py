"""How good predictions are: error, ranking, monotonicity, calibration, and regret of the top k."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "coverage",
    "kendall",
    "mae",
    "monotonicity_score",
    "rmse",
    "spearman",
    "top_k_regret",
    "violations",
]


def mae(measured: ArrayLike, predicted: ArrayLike) -> float:
    """Mean absolute error, in the metric's units."""
    from sklearn.metrics import mean_absolute_error

    return float(mean_absolute_error(measured, predicted))


def rmse(measured: ArrayLike, predicted: ArrayLike) -> float:
    """Root of the mean squared error, in the metric's units."""
    from sklearn.metrics import root_mean_squared_error

    return float(root_mean_squared_error(measured, predicted))


def spearman(measured: ArrayLike, predicted: ArrayLike) -> float:
    """Spearman's rank correlation; NaN where either side is constant."""
    from scipy.stats import spearmanr

    return (
        float("nan")
        if _constant(measured, predicted)
        else float(spearmanr(measured, predicted).statistic)
    )


def kendall(measured: ArrayLike, predicted: ArrayLike) -> float:
    """Kendall's tau-b; NaN where either side is constant."""
    from scipy.stats import kendalltau

    return (
        float("nan")
        if _constant(measured, predicted)
        else float(kendalltau(measured, predicted).statistic)
    )


def violations(measured: ArrayLike, predicted: ArrayLike, *, ties: float = 0.5) -> float:
    """Number of pairs that are predicted in the wrong order (Hakim 2022, section 3).

    Counted in O(n log n). A pair of equal measured values is never a violation.

    Args:
        measured: (n,) values.
        predicted: (n,) values.
        ties: What a pair of equal predictions of unequal values counts: 0.5 is what it counts on
            average in a random order, so that a constant prediction is worth as much as one (the
            paper's naive reference); the paper's own table counts 0.

    Raises:
        ValueError: The two differ in length, or hold a NaN.
    """
    y, p = _pairable(measured, predicted)
    order = np.lexsort((p, y))  # by measured value; equal ones by prediction: never a violation
    _, ranks = np.unique(p[order], return_inverse=True)
    tied = _tied_pairs(p) - _tied_pairs(np.stack([y, p], axis=1))
    return _inversions(ranks.tolist()) + ties * tied


def monotonicity_score(measured: ArrayLike, predicted: ArrayLike, *, ties: float = 0.5) -> float:
    """1 - violations / (n (n - 1) / 2): 1 for the right order, 0 for the reverse (Eq. 1).

    Args:
        measured: (n,) values, n at least 2.
        predicted: (n,) values.
        ties: See `violations`.

    Raises:
        ValueError: The two differ in length, hold a NaN, or are fewer than 2.
    """
    n = len(np.asarray(measured))
    if n < 2:
        raise ValueError(f"there must be at least 2 values to order, but got {n}.")
    return 1.0 - violations(measured, predicted, ties=ties) / (n * (n - 1) / 2)


def coverage(measured: ArrayLike, low: ArrayLike, high: ArrayLike) -> float:
    """Share of measured values that lie within their intervals, ends included."""
    y = np.asarray(measured)
    return float(np.mean((np.asarray(low) <= y) & (y <= np.asarray(high))))


def top_k_regret(measured: ArrayLike, predicted: ArrayLike, k: int = 1) -> float:
    """Best measured value minus the best one among the k that are predicted highest.

    Raises:
        ValueError: k is less than 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, but got {k}.")
    y = np.asarray(measured, dtype=np.float64)
    top = np.argsort(-np.asarray(predicted, dtype=np.float64), kind="stable")[:k]
    return float(y.max() - y[top].max())


def _pairable(
    measured: ArrayLike, predicted: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, p = np.asarray(measured, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if y.ndim != 1 or y.shape != p.shape or np.isnan(y).any() or np.isnan(p).any():
        raise ValueError(
            "measured and predicted must be numbers of one shape (n,), "
            f"but have shapes {y.shape} and {p.shape}, or hold NaN."
        )
    return y, p


def _tied_pairs(values: NDArray[np.float64]) -> int:
    """Pairs of equal values, or of equal rows."""
    _, counts = np.unique(values, axis=0, return_counts=True)
    return int((counts * (counts - 1) // 2).sum())


def _inversions(ranks: list[int]) -> int:
    """Pairs of which the first is greater, by a binary indexed tree of the ranks seen so far."""
    tree = [0] * (max(ranks, default=0) + 2)
    found = 0
    for seen, rank in enumerate(ranks):
        found += seen
        place = rank + 1
        while place:  # all that are at most this one
            found -= tree[place]
            place &= place - 1
        place = rank + 1
        while place < len(tree):
            tree[place] += 1
            place += place & -place
    return found


def _constant(*columns: ArrayLike) -> bool:
    return any(np.ptp(np.asarray(column)) == 0 for column in columns)
