"""Rewards by which a generator is taught: the learned one of PNAG, and others to compare it with.

A reward reads codes (n, width), costs (n, c) and budgets (n, c), and returns (n,) numbers of which
more is better. Only their order and distances under one budget count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from nni_aiop.predictors import ParetoEvaluator

__all__ = ["Reward", "absolute_reward", "multi_objective_reward", "pareto_reward"]

Array = NDArray[np.float64]
Reward = Callable[[Array, Array, Array], Array]
Accuracy = Callable[[Array], Array]
"""From codes (n, width) to (n,) accuracies as fractions."""


def pareto_reward(evaluator: ParetoEvaluator) -> Reward:
    """R(.|B; w) itself (Guo et al. 2022, Eq. 2)."""
    return lambda codes, costs, budgets: evaluator.score(codes, budgets, costs)


def multi_objective_reward(
    accuracy: Accuracy, *, alpha: float = -0.07, beta: float = -0.07
) -> Reward:
    """accuracy * (cost / budget)^w, of several costs the product.

    w is alpha where the budget is kept and beta where it is not. With the published -0.07 for both
    (soft) the budget is but a factor: whatever it is, the same architecture is the best one. With 0
    and -1 (hard) only what exceeds the budget is charged.

    Source: Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile", CVPR 2019,
    Eqs. 2 and 3.
    """

    def reward(codes: Array, costs: Array, budgets: Array) -> Array:
        ratio = np.maximum(costs / budgets, 1e-9)  # of a cost that may be 0
        charged: Array = (ratio ** np.where(ratio <= 1, alpha, beta)).prod(axis=1)
        return accuracy(codes) * charged

    return reward


def absolute_reward(accuracy: Accuracy, *, weight: float = -0.07) -> Reward:
    """`accuracy + weight * |cost / budget - 1|`, of several costs the sum.

    Source: Bender et al., "Can Weight Sharing Outperform Random Architecture Search? An
    Investigation With TuNAS", CVPR 2020, Eq. 4.
    """
    return lambda codes, costs, budgets: (
        accuracy(codes) + weight * np.abs(costs / budgets - 1).sum(axis=1)
    )
