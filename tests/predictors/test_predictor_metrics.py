"""Metrics of predictions against numbers worked by hand."""

import math
from itertools import combinations

import numpy as np
import pytest

from nni_aiop.predictors import Prediction
from nni_aiop.predictors.metrics import (
    coverage,
    kendall,
    mae,
    monotonicity_score,
    rmse,
    spearman,
    top_k_regret,
    violations,
)


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


def test_violations_of_the_papers_example() -> None:
    # Seven items, one of which stands three places too late: 3 of 21 pairs (figure 4).
    measured, predicted = [1, 2, 3, 4, 5, 6, 7], [1, 2, 6, 3, 4, 5, 7]
    assert violations(measured, predicted) == 3
    assert monotonicity_score(measured, predicted) == pytest.approx(6 / 7)
    assert monotonicity_score(measured, measured) == 1
    assert monotonicity_score(measured, measured[::-1]) == 0


def test_violations_of_random_orders_and_of_a_constant() -> None:
    # The paper's naive reference: half of 780 pairs.
    measured = np.arange(40.0)
    rng = np.random.default_rng(0)
    found = [violations(measured, rng.permutation(40)) for _ in range(500)]
    assert np.mean(found) == pytest.approx(390, abs=8)
    assert violations(measured, np.zeros(40)) == 390
    assert violations(measured, np.zeros(40), ties=0) == 0


@pytest.mark.parametrize("ties", [0.0, 0.5, 1.0])
def test_violations_are_those_of_all_pairs(ties: float) -> None:
    rng = np.random.default_rng(1)
    for n in (0, 1, 2, 30):
        y, p = rng.integers(0, 8, n), rng.integers(0, 8, n)
        pairs = [(y[i] - y[j]) * (p[i] - p[j]) for i, j in combinations(range(n), 2)]
        tied = sum(y[i] != y[j] and p[i] == p[j] for i, j in combinations(range(n), 2))
        assert violations(y, p, ties=ties) == sum(x < 0 for x in pairs) + ties * tied


def test_many_violations_are_counted_quickly() -> None:
    n = 30_000  # all pairs at once would take gigabytes
    assert violations(np.arange(n), -np.arange(n)) == n * (n - 1) / 2


@pytest.mark.parametrize("predicted", [[1.0], [1.0, math.nan], [[1.0, 2.0]]])
def test_what_cannot_be_ordered_is_refused(predicted: list[float]) -> None:
    with pytest.raises(ValueError, match="must be numbers of one shape"):
        violations([1.0, 2.0], predicted)
    with pytest.raises(ValueError, match="at least 2"):
        monotonicity_score([1.0], [1.0])


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
