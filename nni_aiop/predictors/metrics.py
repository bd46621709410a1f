"""How good predictions are: error, ranking, calibration, and regret of the top k."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["coverage", "kendall", "mae", "rmse", "spearman", "top_k_regret"]


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


def _constant(*columns: ArrayLike) -> bool:
    return any(np.ptp(np.asarray(column)) == 0 for column in columns)
