"""When choices have an order: the rule that the spaces of NNI and of Optuna are read by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from numbers import Real

from nni_aiop.spaces import Value

__all__ = ["is_number", "is_ordered"]


def is_number(value: Value) -> bool:
    """Whether it is a real number, which a bool does not mean to be."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_ordered(values: Sequence[Value]) -> bool:
    """Whether the values are several finite numbers that increase: such choices are ordinal."""
    return (
        len(values) > 1
        and all(is_number(v) and math.isfinite(v) for v in values)
        and all(a < b for a, b in pairwise(values))
    )
