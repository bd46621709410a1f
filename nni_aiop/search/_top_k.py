"""The simplest search by a predictor: look up the top of a pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nni_aiop.search._predictor_based import Array, PredictorSearch
from nni_aiop.spaces import CodeSpace, Sample

if TYPE_CHECKING:
    from nni_aiop.predictors import CodePredictor

__all__ = ["PredictorTopK"]


class PredictorTopK(PredictorSearch):
    """Wen et al., "Neural Predictor for Neural Architecture Search", ECCV 2020: fit once, look up
    the top of a pool.

    The pool is the whole space where that is small, else `pool` random samples.

    Args:
        pool: Number of samples that the predictor ranks.
        options: See `PredictorSearch`; one round by default.
    """

    def __init__(self, space: CodeSpace, *, pool: int = 10_000, **options: Any) -> None:
        super().__init__(space, **{"rounds": 1, "exploration": 0.0, **options})
        self.pool = pool

    _kept = (*PredictorSearch._kept, "pool")

    def _candidates(
        self, predictor: CodePredictor, samples: list[Sample], metrics: list[dict[str, float]]
    ) -> Array:
        if self.space.size <= 2 * self.pool:
            points = self.space.enumerate_points(2 * self.pool)
        else:
            points = self._drawn_points(self.pool)
        return np.unique(self.space.normalise(points), axis=0)
