"""The regressors of Hakim's table 3 by their names there, and the default."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nni_aiop.predictors.tabular._gp import GPRegressor

__all__ = ["REGRESSORS", "default_regressor", "make_regressor"]

Array = NDArray[np.float64]

_SIZES = (25, 50, 100, 200)  # of the ensembles
# The paper does not say these; its code does. The targets are accuracies as fractions.
_SVR = {"epsilon": 0.001, "C": 0.1}


def _neighbours(k: int, seed: int) -> Any:
    from sklearn.neighbors import KNeighborsRegressor

    return KNeighborsRegressor(n_neighbors=k, algorithm="brute")


def _to_root(targets: Array, degree: float) -> Array:
    root: Array = targets ** (1 / degree) - 1
    return root


def _from_root(predicted: Array, degree: float) -> Array:
    power: Array = np.maximum(predicted + 1, 0) ** degree
    return power


def _linear(degree: float, seed: int) -> Any:
    """y = (w x + b + 1)^D: a linear fit of y^(1/D) - 1 (below table 3)."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.linear_model import LinearRegression

    if degree == 1:
        return LinearRegression()
    return TransformedTargetRegressor(
        LinearRegression(),
        func=partial(_to_root, degree=degree),
        inverse_func=partial(_from_root, degree=degree),
        check_inverse=False,
    )


def _tree(seed: int) -> Any:
    from sklearn.tree import DecisionTreeRegressor

    return DecisionTreeRegressor(random_state=seed)


def _ensemble(kind: str, size: int, seed: int) -> Any:
    from sklearn import ensemble

    return getattr(ensemble, kind)(n_estimators=size, random_state=seed)


def _svr(kernel: str, seed: int) -> Any:
    from sklearn.svm import SVR

    return SVR(kernel=kernel, **_SVR)


def _ensembles(name: str, kind: str) -> dict[str, Callable[[int], Any]]:
    return {f"{name} (N={size})": partial(_ensemble, kind, size) for size in _SIZES}


REGRESSORS: dict[str, Callable[[int], Any]] = {
    **{f"{k}-NN": partial(_neighbours, k) for k in (1, 3, 5, 7, 9)},
    "Linear Regression": partial(_linear, 1),
    "Linear Regression (D=0.5)": partial(_linear, 0.5),
    "Linear Regression (D=0.25)": partial(_linear, 0.25),
    "Decision Tree": _tree,
    **_ensembles("Gradient Boosting", "GradientBoostingRegressor"),
    **_ensembles("AdaBoost", "AdaBoostRegressor"),
    "SVR (RBF kernel)": partial(_svr, "rbf"),
    "SVR (Polynomial kernel)": partial(_svr, "poly"),
    "SVR (Linear kernel)": partial(_svr, "linear"),
    **_ensembles("Random Forest", "RandomForestRegressor"),
}
"""Every regressor of table 3, in its order: from a seed to an unfitted estimator, without the
standardisation that `make_regressor` puts in front."""


def make_regressor(name: str, seed: int = 0) -> Any:
    """An unfitted regressor of table 3 behind a standardisation of the columns, or "gp".

    Raises:
        ValueError: There is no such regressor.

    Example:
        >>> model = make_regressor("3-NN").fit([[0.0], [1.0], [2.0]], [1.0, 2.0, 3.0])
        >>> model.predict([[1.0]]).tolist()
        [2.0]
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if name == "gp":
        return default_regressor(seed)
    if name not in REGRESSORS:
        known = ", ".join(["gp", *REGRESSORS])
        raise ValueError(f"a regressor must be one of {known}, but got {name!r}.")
    return make_pipeline(StandardScaler(), REGRESSORS[name](seed))


def default_regressor(seed: int = 0) -> GPRegressor:
    """The regressor that cross-validation chose: a Gaussian process, with uncertainty."""
    return GPRegressor(random_state=seed)
