"""Grids of budgets at their ends: levels, draws, what lies outside, what is refused."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from nni_aiop.errors import SpaceError
from nni_aiop.predictors import BudgetGrid, ParetoEvaluator
from nni_aiop.spaces import CodeSpace, Nominal, Ordinal

TWO = BudgetGrid({"ms": (10.0, 20.0, 40.0), "mb": (1.0, 2.0, 3.0)})


def test_draws_are_as_many_of_each_level() -> None:
    drawn = TWO.draws(4, np.random.default_rng(0))
    assert drawn.shape == (12, 2)
    assert drawn[:, 0].tolist() == [10.0] * 4 + [20.0] * 4 + [40.0] * 4
    assert Counter(drawn[:, 1].tolist()) == {1.0: 4, 2.0: 4, 3.0: 4}
    assert drawn[:, 1].tolist() != sorted(drawn[:, 1].tolist())
    assert BudgetGrid({}).draws(3, np.random.default_rng(0)).shape == (3, 0)
    assert TWO.array.tolist() == [[10.0, 1.0], [20.0, 2.0], [40.0, 3.0]]


def test_the_ends_of_the_trained_range_are_inside() -> None:
    for inside in ([10.0, 1.0], [40.0, 3.0], [15.0, 2.5]):
        assert TWO.outside(inside) is None
    assert "budget of ms" in str(TWO.outside([9.9, 2.0])) and "10 to 40" in str(
        TWO.outside([40.1, 2.0])
    )
    assert "budget of mb must lie in the trained range from 1 to 3, but got 4" in str(
        TWO.outside([10.0, 4.0])
    )


def test_budgets_by_name_are_positive_numbers() -> None:
    assert TWO.vector({"mb": 2, "ms": 11}).tolist() == [11.0, 2.0]
    assert BudgetGrid({"ms": (1.0,)}).vector(7).tolist() == [7.0]
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(SpaceError, match="the budget of mb must be a positive number"):
            TWO.vector({"ms": 11.0, "mb": wrong})
    with pytest.raises(SpaceError, match="must name ms, mb, but got ms"):
        TWO.vector(3.0)


def test_levels_from_costs() -> None:
    costs = {"ms": [1.0, 2.0, 3.0, 4.0, 5.0]}
    assert BudgetGrid.spread(costs, 2, low=0.0, high=1.0).levels == {"ms": (1.0, 5.0)}
    assert BudgetGrid.spread({"ms": [3.0, 3.0]}, 1).levels == {"ms": (3.0,)}
    for k, low, high in ((0, 0.1, 0.9), (2, -0.1, 0.9), (2, 0.9, 0.9), (2, 0.1, 1.1)):
        with pytest.raises(ValueError, match=r"k >= 1 and 0 <= low < high <= 1 must hold"):
            BudgetGrid.spread(costs, k, low=low, high=high)
    for values in ([], [1.0, math.inf]):
        with pytest.raises(ValueError, match="costs must be finite numbers"):
            BudgetGrid.spread({"ms": values}, 2)
    with pytest.raises(ValueError, match="a cost must differ between architectures"):
        BudgetGrid.spread({"ms": [3.0, 3.0]}, 2)
    for levels in ((1.0, 1.0), (1.0, math.inf), (-1.0, 1.0)):
        with pytest.raises(ValueError, match="levels of ms must"):
            BudgetGrid({"ms": levels})


def test_an_evaluator_reads_standardised_codes() -> None:
    space = CodeSpace(
        [Ordinal("a", range(5)), Nominal("b", ("x", "y"))], costs={"ms": lambda c: 1 + c[:, 0]}
    )
    grid = BudgetGrid({"ms": (1.2, 1.8)})
    codes = space.encode([{"a": i, "b": "x" if i < 4 else "y"} for i in range(5)])
    fitted = ParetoEvaluator(space, grid, steps=2, batch_size=2).fit(codes, np.arange(5.0))
    inputs = fitted._inputs(codes).numpy()
    assert inputs.mean(axis=0) == pytest.approx(np.zeros(3), abs=1e-6)
    assert inputs.std(axis=0) == pytest.approx(np.ones(3), rel=1e-5)
    same = ParetoEvaluator(space, grid, steps=1).fit(codes[[0, 0]], np.arange(2.0))
    assert (same._scale == 1).all()
    with pytest.raises(ValueError, match="batch_size must be at least 2, but got 1"):
        ParetoEvaluator(space, grid, batch_size=1)
    with pytest.raises(ValueError, match="at least 2 architectures"):
        ParetoEvaluator(space, grid, steps=1).fit(codes[:1], [1.0])
    with pytest.raises(ValueError, match=r"accuracies must be finite numbers, but row 1"):
        ParetoEvaluator(space, grid, steps=1).fit(codes, [1.0, np.nan, 1.0, 1.0, 1.0])
