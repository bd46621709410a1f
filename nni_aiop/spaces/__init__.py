"""Search spaces as flat lists of typed dimensions: codes of samples, costs, limits on costs."""

from nni_aiop.spaces._cheapest import cheapest, refuse_impossible
from nni_aiop.spaces._code_space import CodeSpace, Condition, Constraint
from nni_aiop.spaces._coding import LISTED, Sample
from nni_aiop.spaces._cost_book import CostBook
from nni_aiop.spaces._costed import CostFunction
from nni_aiop.spaces._dimensions import Continuous, Dimension, Value
from nni_aiop.spaces._learned_cost import LearnedCost, RescaledCost
from nni_aiop.spaces._limits import (
    check_limits,
    excess,
    meets_limits,
    probable_excess,
    repair,
    tabulated,
    within_limits,
)
from nni_aiop.spaces._listed import Nominal, Ordinal, Subset
from nni_aiop.spaces._mutations import CRITERION, MutationSpace
from nni_aiop.spaces._narrowed import narrowed
from nni_aiop.spaces._neighbours import Moves
from nni_aiop.spaces._probe import check_cost
from nni_aiop.spaces._sample_cost import SampleCost, TableCost, graph_costs, sample_costs

__all__ = [
    "CRITERION",
    "LISTED",
    "CodeSpace",
    "Condition",
    "Constraint",
    "Continuous",
    "CostBook",
    "CostFunction",
    "Dimension",
    "LearnedCost",
    "Moves",
    "MutationSpace",
    "Nominal",
    "Ordinal",
    "RescaledCost",
    "Sample",
    "SampleCost",
    "Subset",
    "TableCost",
    "Value",
    "cheapest",
    "check_cost",
    "check_limits",
    "excess",
    "graph_costs",
    "meets_limits",
    "narrowed",
    "probable_excess",
    "refuse_impossible",
    "repair",
    "sample_costs",
    "tabulated",
    "within_limits",
]
