"""Metrics of predictions against numbers worked by hand."""

import math

import numpy as np
import pytest

from nni_aiop.predictors import Prediction
from nni_aiop.predictors.metrics import coverage, kendall, mae, rmse, spearman, top_k_regret


def test_errors() -> None:
    assert mae([1.0, 2.0, 4.0], [1.0, 4.0, 3.0]) == 1.0
    assert rmse([0.0, 0.0], [3.0, 4.0]) == pytest.approx(math.sqrt(12.5))


def test_ranks() -> None:
    # Of six pairs, (2, 3) alone is turned round: tau = (5 - 1) / 6, rho = 1 - 6 * 2 / (4 * 15).
    measured, predicted = [1, 2, 3, 4], [10, 30, 20, 40]
    assert kendall(measured, predicted) == pytest.approx(4 / 6)
    assert spearman(measured, predicted) == pytest.approx(0.8)
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert math.isnan(kendall([1, 2, 3], [5, 5, 5]))


def test_coverage_counts_the_ends() -> None:
    assert coverage([0.0, 1.0, 2.0, 9.0], [0, 0, 0, 0], [1, 1, 1, 1]) == 0.5


def test_top_k_regret() -> None:
    measured, predicted = [90.0, 93.0, 95.0], [3.0, 2.0, 1.0]
    assert [top_k_regret(measured, predicted, k) for k in (1, 2, 3)] == [5.0, 2.0, 0.0]
    with pytest.raises(ValueError, match="k must be at least 1"):
        top_k_regret(measured, predicted, 0)


def test_interval_of_a_standard_normal() -> None:
    prediction = Prediction(np.zeros((1, 1)), np.ones((1, 1)), ("x",))
    low, high = prediction.interval(0.8)
    assert high[0, 0] == pytest.approx(1.2815516, abs=1e-7)
    assert low[0, 0] == -high[0, 0]
    with pytest.raises(ValueError, match="level must lie in"):
        prediction.interval(1.0)
