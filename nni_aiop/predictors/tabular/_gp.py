"""A Gaussian process over any columns, with scikit-learn's conventions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from typing_extensions import Self

from nni_aiop.predictors._gp import CodeGP
from nni_aiop.spaces import CodeSpace, Continuous

__all__ = ["GPRegressor"]

Array = NDArray[np.float64]

_TARGET = "target"


class GPRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """`CodeGP` for columns of any meaning: a Matern kernel with a length scale for each.

    Columns are standardised inside. See `CodeGP` for how outliers and the predicted standard
    deviation are handled.

    Args:
        rows: At most so many rows choose the hyperparameters; all refine them.
        steps: At most so many evaluations of the posterior density choose them.
        random_state: Of the choice of rows.

    Attributes:
        gp_: The fitted `CodeGP`.

    Example:
        >>> X = [[0.0], [1.0], [2.0], [3.0]]
        >>> mean, std = GPRegressor().fit(X, [0.0, 1.0, 2.0, 3.0]).predict(X, return_std=True)
        >>> mean.round().tolist(), bool((std > 0).all())
        ([0.0, 1.0, 2.0, 3.0], True)
    """

    def __init__(self, *, rows: int = 1000, steps: int = 60, random_state: int = 0) -> None:
        self.rows = rows
        self.steps = steps
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """This regressor, fitted.

        Args:
            X: (n, p) finite columns, n at least 2.
            y: (n,) targets.

        Raises:
            ValueError: A shape is wrong, a number is not finite, or rows are fewer than 2.
        """
        columns, targets = validate_data(
            self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2
        )
        space = CodeSpace(
            [Continuous(f"x{j}", 0.0, 1.0) for j in range(columns.shape[1])], name="columns"
        )
        gp = CodeGP(space, rows=self.rows, steps=self.steps, seed=self.random_state)
        self.gp_ = gp.fit(columns, {_TARGET: np.asarray(targets, dtype=np.float64)})
        return self

    def predict(self, X: ArrayLike, return_std: bool = False) -> Any:
        """(n,) means, and on demand (n,) standard deviations of new measurements.

        Raises:
            NotFittedError: `fit` was not called.
            ValueError: There are other columns than at the fit.
        """
        check_is_fitted(self)
        columns = validate_data(self, X, dtype=np.float64, reset=False)
        found = self.gp_.predict(columns)
        mean: Array = found.mean[:, 0]
        return (mean, found.std[:, 0]) if return_std else mean
