"""Search spaces as flat lists of typed dimensions, and the codes of their samples."""

from nni_aiop.spaces._code_space import CodeSpace, Condition, Constraint, Sample
from nni_aiop.spaces._dimensions import (
    Continuous,
    Dimension,
    Nominal,
    Ordinal,
    Subset,
    Value,
)

__all__ = [
    "CodeSpace",
    "Condition",
    "Constraint",
    "Continuous",
    "Dimension",
    "Nominal",
    "Ordinal",
    "Sample",
    "Subset",
    "Value",
]
