"""Random values of Optuna's distributions that any worker draws alike."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

from nni_aiop.engines._optuna_parameters import nearest

__all__ = ["draw"]

_SHUFFLED = 1_024  # choices up to this number are shuffled, more are drawn


def draw(seed: int, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
    """A random value, the same for the same seed, trial number and values suggested before.

    The trial's number is read as digits, one for each parameter, in a base of as many digits as the
    parameter has choices; what was suggested before decides what a digit stands for. So any worker
    can draw without looking at the others, and the first trials of a study differ from each other.
    """
    number = trial.number
    for suggested in trial.distributions.values():
        number //= _base(suggested) or 1
    path = repr((seed, name, list(trial.params.items())))
    rng = np.random.default_rng(list(hashlib.sha256(path.encode()).digest()))
    base = _base(distribution)
    if base is None:
        rng = np.random.default_rng([int(rng.integers(2**32)), trial.number])
        return _quantile(distribution, float(rng.random()))
    return _choice(distribution, int(rng.permutation(base)[number % base]))


def _base(distribution: BaseDistribution) -> int | None:
    """How many equally likely values there are; None where there are too many to shuffle."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    if distribution.log or distribution.step is None:
        return None
    n = round((distribution.high - distribution.low) / distribution.step) + 1
    return n if n <= _SHUFFLED else None


def _choice(distribution: BaseDistribution, index: int) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[index]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    return min(distribution.low + index * (distribution.step or 1), distribution.high)


def _quantile(distribution: BaseDistribution, u: float) -> float | int:
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    # Half a step beyond either end, so that the ends are as likely as the rest.
    half = (distribution.step or 0) / 2
    low, high = distribution.low - half, distribution.high + half
    if distribution.log:
        number = math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
    else:
        number = low + u * (high - low)
    return nearest(distribution, number)
