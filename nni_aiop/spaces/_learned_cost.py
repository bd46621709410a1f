"""A cost that a search learns, in the place of an exact one of its space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nni_aiop.spaces._coding import Sample
from nni_aiop.spaces._sample_cost import SampleCost

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LearnedCost", "RescaledCost"]

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


class RescaledCost(SampleCost):
    """A `SampleCost` in the unit of a `LearnedCost`, exact where the given one is."""

    def __init__(self, cost: SampleCost, low: float, span: float) -> None:
        super().__init__(cost.function, quick=cost.quick, noisy=cost.noisy, initial=cost.initial)
        self.cost = cost
        self.low = low
        self.span = span

    def _evaluated(self, new: Mapping[str, Sample]) -> list[float]:
        values = self.cost.values(list(new.values()), list(new))
        return [max(_LEAST, 1 + (v - self.low) / self.span) for v in values.tolist()]
