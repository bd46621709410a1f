"""What a result is measured by: objectives, constraints, numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Number
from typing import Any, Literal

__all__ = ["CONSTRAINT", "Objective", "as_number", "read_result", "violation"]

CONSTRAINT = "constraint:"
"""How the names of metrics begin that a feasible result has at 0 or below."""


@dataclass(frozen=True)
class Objective:
    """One metric to improve.

    Args:
        metric: Its name in the metrics that are told.
        direction: Whether more of it is better, or less.
        weight: Its weight beside other objectives (Ding et al. 2022, below Eq. 7).
    """

    metric: str
    direction: Literal["maximize", "minimize"] = "maximize"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.direction not in ("maximize", "minimize"):
            raise ValueError(f"direction must be maximize or minimize, but got {self.direction!r}.")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"weight must be positive, but got {self.weight}.")

    @property
    def sign(self) -> float:
        """1 where more is better, else -1."""
        return 1.0 if self.direction == "maximize" else -1.0

    @classmethod
    def of(cls, given: Objective | str) -> Objective:
        """An objective from itself or from the name of a metric to maximise."""
        if not isinstance(given, (Objective, str)):
            raise ValueError(f"an objective must be one or a metric's name, but got {given!r}.")
        return given if isinstance(given, Objective) else cls(given)


def violation(metrics: Mapping[str, float]) -> float:
    """The sum of what a result's constraints are above 0; 0 for a feasible one."""
    return sum(max(v, 0.0) for name, v in metrics.items() if name.startswith(CONSTRAINT))


def as_number(value: Any) -> float | None:
    """A number, also a NumPy or PyTorch one, as a float; None for anything else."""
    if not isinstance(value, Number) and not hasattr(value, "item"):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def read_result(metrics: Any) -> dict[str, float] | None:
    """The metrics of a state's result; None where the evaluation failed.

    Raises:
        ValueError: A metric is no finite number.
    """
    if metrics is None:
        return None
    found = {str(name): float(value) for name, value in metrics.items()}
    for name, value in found.items():
        if not math.isfinite(value):
            raise ValueError(f"{name!r:.80} of a result must be finite, but is {value}")
    return found
