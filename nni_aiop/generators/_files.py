"""What files of a generator hold, and the sentence for what they lack."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import AiopError, FileFormatError
from nni_aiop.predictors import ParetoEvaluator
from nni_aiop.spaces import SampleCost

if TYPE_CHECKING:
    from nni_aiop.spaces import CodeSpace

__all__ = ["evaluator_tensors", "exact_costs", "whole"]


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


@contextmanager
def whole(path: str | os.PathLike[str], what: str, tensors: Mapping[str, Any]) -> Iterator[None]:
    """What a file of the right checksum lacks or has wrong becomes a FileFormatError."""
    try:
        for name, value in tensors.items():
            if not np.isfinite(value).all():
                raise ValueError(f"{name} has numbers that are not finite")
        yield
    except AiopError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        KeyError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as err:
        text = " ".join(str(err).split())
        raise FileFormatError(f"{path} must be {what} and whole, but is not: {text}.") from err
