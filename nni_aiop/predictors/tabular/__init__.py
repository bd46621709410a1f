"""Regressors of a final metric from a network's scheme and the first epochs of its training.

All follow scikit-learn's conventions: `fit(X, y)`, `predict(X)`, and `predict(X, return_std=True)`
of the default. `REGRESSORS` names those of Hakim's table 3; `default_regressor` is the one that
cross-validation on NAAP-440's 400 training rows chose (`benchmarks/naap440.py --select`).
"""

from __future__ import annotations

from nni_aiop.predictors.tabular._early_stopping import Decision, EarlyStopping, Forecast
from nni_aiop.predictors.tabular._features import (
    CURVE_COLUMNS,
    SCHEME_COLUMNS,
    compact_curve_features,
    raw_curve_features,
    sample_features,
    scheme_features,
    space_features,
)
from nni_aiop.predictors.tabular._gp import GPRegressor
from nni_aiop.predictors.tabular._regressors import (
    REGRESSORS,
    default_regressor,
    make_regressor,
)
from nni_aiop.predictors.tabular._selection import Score, ablate, score, select

__all__ = [
    "CURVE_COLUMNS",
    "REGRESSORS",
    "SCHEME_COLUMNS",
    "Decision",
    "EarlyStopping",
    "Forecast",
    "GPRegressor",
    "Score",
    "ablate",
    "compact_curve_features",
    "default_regressor",
    "make_regressor",
    "raw_curve_features",
    "sample_features",
    "scheme_features",
    "score",
    "select",
    "space_features",
]
