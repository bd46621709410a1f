"""Rewards at budgets other than one, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nni_aiop.generators import absolute_reward, multi_objective_reward
from nni_aiop.generators._training import _finite

CODES = np.array([[0.5], [0.8]])
COSTS = np.array([[6.0, 1.0], [2.0, 4.0]])
BUDGETS = np.array([[3.0, 4.0], [4.0, 4.0]])  # ratios 2 and 1/4, 1/2 and 1


def accuracy(codes: np.ndarray) -> np.ndarray:
    return codes[:, 0]


def test_the_soft_and_the_hard_product_of_ratios() -> None:
    soft = multi_objective_reward(accuracy)(CODES, COSTS, BUDGETS)
    assert soft == pytest.approx([0.5 * 0.5**-0.07, 0.8 * 0.5**-0.07])
    apart = multi_objective_reward(accuracy, alpha=-2.0, beta=-1.0)(CODES, COSTS, BUDGETS)
    assert apart == pytest.approx([0.5 * 0.5 * 16, 0.8 * 4 * 1])
    free = multi_objective_reward(accuracy)(CODES[:1], np.zeros((1, 1)), np.ones((1, 1)))
    assert free == pytest.approx([0.5 * 1e-9**-0.07])


def test_the_sum_of_relative_distances() -> None:
    found = absolute_reward(accuracy, weight=-0.1)(CODES, COSTS, BUDGETS)
    assert found == pytest.approx([0.5 - 0.1 * (1 + 0.75), 0.8 - 0.1 * (0.5 + 0)])


def test_the_worst_known_reward_stands_for_an_unknown_one() -> None:
    assert _finite(np.array([2.0, np.nan, 1.0, np.inf])).tolist() == [2.0, 1.0, 1.0, 1.0]
    assert _finite(np.array([np.nan, -np.inf])).tolist() == [0.0, 0.0]
