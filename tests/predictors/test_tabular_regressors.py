"""Tabular regressors: scikit-learn's conventions, the paper's names, ablation and selection."""

import pickle

import numpy as np
import pytest
from sklearn.model_selection import KFold
from sklearn.utils.estimator_checks import parametrize_with_checks

from nni_aiop.predictors.metrics import coverage
from nni_aiop.predictors.tabular import (
    REGRESSORS,
    GPRegressor,
    ablate,
    default_regressor,
    make_regressor,
    score,
    select,
)


def rows(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three columns, the last of which says nothing, and accuracies as fractions."""
    X = np.random.default_rng(seed).uniform(-1, 1, (n, 3))
    return X, 0.7 + 0.1 * X[:, 0] + 0.05 * np.sin(3 * X[:, 1])


@parametrize_with_checks([GPRegressor(rows=40, steps=3)])
def test_scikit_learns_conventions(estimator: object, check: object) -> None:
    check(estimator)


def test_the_papers_table_is_complete() -> None:
    assert len(REGRESSORS) == 24
    assert list(REGRESSORS)[:2] == ["1-NN", "3-NN"]
    assert {"Linear Regression (D=0.25)", "AdaBoost (N=200)", "Random Forest (N=25)"} <= set(
        REGRESSORS
    )


@pytest.mark.parametrize("name", [n for n in REGRESSORS if "N=" not in n or "N=25" in n])
def test_every_regressor_by_name(name: str) -> None:
    X, y = rows()
    model = make_regressor(name, 1).fit(X, y)
    predicted = model.predict(X)
    assert np.abs(predicted - y).mean() < np.abs(y - y.mean()).mean()
    np.testing.assert_array_equal(make_regressor(name, 1).fit(X, y).predict(X), predicted)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), predicted)


def test_unknown_names_list_the_choices() -> None:
    with pytest.raises(ValueError, match=r"one of gp, 1-NN, .* but got 'oracle'"):
        make_regressor("oracle")


def test_linear_regression_with_a_degree() -> None:
    # (2 x + 1)^0.5 is learned exactly by the degree that made it.
    x = np.linspace(0, 1, 7)[:, None]
    y = (2 * x[:, 0] + 1) ** 0.5
    np.testing.assert_allclose(make_regressor("Linear Regression (D=0.5)").fit(x, y).predict(x), y)
    assert np.abs(make_regressor("Linear Regression").fit(x, y).predict(x) - y).max() > 0.01


def test_the_default_knows_how_sure_it_is() -> None:
    X, y = rows(160)
    y = y + np.random.default_rng(1).normal(0, 0.01, len(y))
    model = default_regressor().fit(X[:80], y[:80])
    mean, std = model.predict(X[80:], return_std=True)
    half = 1.2816 * std
    assert 0.6 < coverage(y[80:], mean - half, mean + half) < 0.95
    assert make_regressor("gp").fit(X[:80], y[:80]).predict(X[80:]) == pytest.approx(mean)
    _, far = model.predict(X[:1] + 50, return_std=True)
    assert far[0] > 3 * std.mean()


def test_ablation_and_selection_find_the_idle_group() -> None:
    X, y = rows(50)
    groups = {"straight": X[:, 0], "wave": X[:, [1]], "idle": X[:, 2]}
    splits = list(KFold(3, shuffle=True, random_state=0).split(X))
    make = lambda: make_regressor("3-NN")  # noqa: E731
    found = ablate(make, groups, y, splits)
    assert list(found) == ["all", "straight", "wave", "idle"]
    assert found["all"] == score(make, X, y, splits)
    assert found["idle"].mae < found["all"].mae < found["straight"].mae
    assert found["idle"].violations < found["straight"].violations
    assert select(make, groups, y, splits) == ("straight", "wave")
    with pytest.raises(ValueError, match="at least 2 groups"):
        ablate(make, {"straight": X[:, 0]}, y, splits)
