"""A cost that a search learns, in the place of an exact one of its space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LearnedCost"]

_LEAST = 0.01  # of a cost that runs from 1 to 2


@dataclass(frozen=True)
class LearnedCost:
    """A cost that lives as long as its search: from 1 to 2 where the given one runs over `span`."""

    cost: Callable[[Tensor], Tensor]
    low: float
    span: float

    def __call__(self, codes: Tensor) -> Tensor:
        return (1 + (self.cost(codes) - self.low) / self.span).clamp_min(_LEAST)

    @staticmethod
    def rescaled(bound: float, low: float, span: float) -> float:
        """A bound in the unit of such a cost."""
        return max(_LEAST, 1 + (bound - low) / span)
