"""Search spaces as flat lists of typed dimensions: codes of samples, costs, limits on costs."""

from nni_aiop.spaces._cheapest import cheapest, refuse_impossible
from nni_aiop.spaces._code_space import CodeSpace, Condition, Constraint
from nni_aiop.spaces._coding import LISTED, Sample
from nni_aiop.spaces._dimensions import Continuous, Dimension, Value
from nni_aiop.spaces._learned_cost import LearnedCost
from nni_aiop.spaces._limits import check_limits, excess, meets_limits, repair
from nni_aiop.spaces._listed import Nominal, Ordinal, Subset

__all__ = [
    "LISTED",
    "CodeSpace",
    "Condition",
    "Constraint",
    "Continuous",
    "Dimension",
    "LearnedCost",
    "Nominal",
    "Ordinal",
    "Sample",
    "Subset",
    "Value",
    "cheapest",
    "check_limits",
    "excess",
    "meets_limits",
    "refuse_impossible",
    "repair",
]
