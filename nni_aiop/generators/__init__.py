"""Generators of architectures for any budget (PNAG), and the rewards that teach them.

grid = BudgetGrid.spread({"latency_ms": measured}, k=10)
generator = ParetoGenerator(space, grid).fit(codes, accuracy)
(best,) = generator.generate({"latency_ms": 80.0})
"""

from nni_aiop.generators._generator import ParetoGenerator
from nni_aiop.generators._loading import load_generator
from nni_aiop.generators._rewards import (
    Reward,
    absolute_reward,
    multi_objective_reward,
    pareto_reward,
)
from nni_aiop.generators._training import TrainingOptions
from nni_aiop.predictors import BudgetGrid
from nni_aiop.spaces import cheapest

__all__ = [
    "BudgetGrid",
    "ParetoGenerator",
    "Reward",
    "TrainingOptions",
    "absolute_reward",
    "cheapest",
    "load_generator",
    "multi_objective_reward",
    "pareto_reward",
]
