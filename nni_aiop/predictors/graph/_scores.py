"""Labels of one task as what a network learns: scaled, then as normal scores of their ranks.

Accuracies of a search space have long tails: a few networks that failed to train would rule a
squared error. Normal scores, the quantiles of the normal distribution at the labels' ranks (van der
Waerden, 1952), keep the order and have a mean of 0 and a standard deviation of 1, as Eq. 4 of AIO-P
asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata
from typing_extensions import Self

from nni_aiop.errors import FileFormatError
from nni_aiop.predictors.graph.labels import LabelScaling

__all__ = ["NormalScores", "TaskLabels", "normal_scores"]

Array = NDArray[np.float64]

_KNOTS = 129


def normal_scores(y: ArrayLike) -> Array:
    """(n,) normal scores of the ranks of values (n,)."""
    values = np.asarray(y, np.float64)
    return np.asarray(norm.ppf(rankdata(values) / (len(values) + 1)))


class NormalScores:
    """A rising, piecewise linear map of values to the normal scores of their ranks.

    Beyond the least and the largest value it goes on with a slope of 1.

    Attributes:
        values_: (k,) rising values, at most 129: quantiles of those it learned from.
        scores_: (k,) their rising scores.

    Example:
        >>> scores = NormalScores().fit([1.0, 2.0, 50.0])
        >>> scores.transform([1.0, 2.0, 50.0, 51.0]).round(3).tolist()
        [-0.674, 0.0, 0.674, 1.674]
    """

    values_: Array
    scores_: Array

    def fit(self, y: ArrayLike) -> Self:
        """This map, learned from values (n,), at least one."""
        y = np.asarray(y, np.float64)
        scores = normal_scores(y)
        values, first = np.unique(y, return_index=True)
        kept = np.unique(np.linspace(0, len(values) - 1, _KNOTS).round().astype(int))
        self.values_, self.scores_ = values[kept], scores[first][kept]
        return self

    def transform(self, y: ArrayLike) -> Array:
        """(n,) scores of values (n,)."""
        return _line(np.asarray(y, np.float64), self.values_, self.scores_)

    def inverse(self, z: ArrayLike) -> Array:
        """(n,) values of scores (n,)."""
        return _line(np.asarray(z, np.float64), self.scores_, self.values_)


def _line(x: Array, known: Array, values: Array) -> Array:
    inside = np.interp(x, known, values)
    return np.asarray(inside + np.minimum(x - known[0], 0) + np.maximum(x - known[-1], 0))


@dataclass(frozen=True)
class TaskLabels:
    """What turns labels of one task into what a network learns, and back.

    Attributes:
        scaling: Eqs. 4 and 5.
        scores: Of the scaled labels; None where these are learned as they are.
    """

    scaling: LabelScaling
    scores: NormalScores | None = None

    @classmethod
    def fit(
        cls, y: Array, flops: Array, *, by_flops: bool, normal_scores: bool = False
    ) -> TaskLabels:
        """Learned from labels (n,), NaN where not known, and the networks' FLOPs (n,)."""
        known = ~np.isnan(y)
        scaling = LabelScaling(by_flops=by_flops).fit(y[known], flops[known])
        if not normal_scores:
            return cls(scaling)
        return cls(scaling, NormalScores().fit(scaling.transform(y[known], flops[known])))

    def transform(self, y: Array, flops: Array) -> Array:
        """(n,) targets of labels (n,), NaN where these are."""
        known = ~np.isnan(y)
        scaled = self.scaling.transform(y[known], flops[known])
        result = np.full(len(y), np.nan)
        result[known] = scaled if self.scores is None else self.scores.transform(scaled)
        return result

    def inverse(self, z: Array, s: Array, flops: Array) -> tuple[Array, Array]:
        """(n,) means and standard deviations, in the labels' unit, of those of targets (n,)."""
        if self.scores is not None:
            ends = [self.scores.inverse(z + sign * s) for sign in (-1, 1)]
            z, s = self.scores.inverse(z), (ends[1] - ends[0]) / 2
        return self.scaling.inverse(z, flops), self.scaling.inverse_std(s, flops)

    def to_json(self) -> dict[str, Any]:
        """What was learned, in JSON's own types."""
        scores = self.scores
        knots = None if scores is None else [scores.values_.tolist(), scores.scores_.tolist()]
        return {"scaling": self.scaling.to_json(), "knots": knots}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> TaskLabels:
        """What `to_json` described.

        Raises:
            FileFormatError: An entry is missing or not of its kind.
        """
        try:
            scaling, knots = LabelScaling.from_json(content["scaling"]), content["knots"]
            if knots is None:
                return cls(scaling)
            scores = NormalScores()
            scores.values_, scores.scores_ = (np.array(part, np.float64) for part in knots)
            rising = all((np.diff(part) > 0).all() for part in (scores.values_, scores.scores_))
            if scores.values_.shape != scores.scores_.shape or not rising:
                raise ValueError("knots must rise together")
        except (KeyError, TypeError, ValueError) as err:
            raise FileFormatError(f"labels of a task must be whole, but are not: {err}.") from err
        return cls(scaling, scores)
