"""What files of a generator hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nni_aiop.predictors import ParetoEvaluator
from nni_aiop.spaces import SampleCost

if TYPE_CHECKING:
    from nni_aiop.spaces import CodeSpace

__all__ = ["evaluator_tensors", "exact_costs"]


def evaluator_tensors(evaluator: ParetoEvaluator | None) -> dict[str, NDArray[Any]]:
    if evaluator is None:
        return {}
    return {f"evaluator.{k}": v for k, v in evaluator.tensors().items()}


def exact_costs(space: CodeSpace, names: Iterable[str]) -> dict[str, list[float]]:
    """The costs of a few architectures, by which a file knows its space's costs again.

    What is measured has other numbers each time: none are kept.
    """
    points = space.canonical_points(space.sample_points(4, np.random.default_rng(0)))
    codes = space.encode_points(points)
    # Nine digits are the same on every machine.
    return {
        name: [
            float(f"{c:.9g}") for c in ([] if _is_noisy(space, name) else space.cost(name, codes))
        ]
        for name in names
    }


def _is_noisy(space: CodeSpace, name: str) -> bool:
    cost = space.costs[name]
    return isinstance(cost, SampleCost) and cost.noisy
