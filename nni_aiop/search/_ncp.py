"""Network coding propagation as a search: refit, propagate, look up what improves most."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nni_aiop.search._acquisition import beside, perturbed
from nni_aiop.search._distinct import distinct
from nni_aiop.search._predictor_based import Array, PredictorSearch
from nni_aiop.spaces import CodeSpace, Sample

if TYPE_CHECKING:
    from nni_aiop.predictors import CodePredictor

__all__ = ["NCPSearch"]

_LARGEST_ROUND = 32  # proposals between two fits
_ELITE = 8  # best results whose neighbours NCP looks at
_FRESH = 1_000  # random architectures that it looks at
_BESIDE = 4_000  # neighbours of the best that it looks at
_MOVES = 10  # moves in the fine dimensions of each of the best and of their neighbours
_MOVED = 400  # of these that are moved


class NCPSearch(PredictorSearch):
    """Network coding propagation in rounds: refit, propagate, look up the best visited codes.

    The published method (Ding et al. 2022) propagates once through a predictor of a finished
    benchmark. As a search that pays for each evaluation it gains from these changes, which are this
    class. The code is rounded at every step with a straight-through gradient, and many starts run
    in one batch. All visited codes compete, with the neighbours of the best results, moves of their
    real numbers, and random architectures beside them, by expected improvement; what is asked for
    counts as evaluated with its predicted result (see `_acquisition`). The predictor is refitted
    with what was looked up, and learns the logarithm of the regret (see `log_regret`) where that
    predicts better, unless several terms are weighed against each other.

    Args:
        starts: Number of starts of each round: the best results so far, and random codes.
        steps: Iterations of propagation.
        lr: Learning rate of Adam in the standardised code.
        options: See `PredictorSearch`.
    """

    def __init__(
        self,
        space: CodeSpace,
        *,
        starts: int = 64,
        steps: int = 20,
        lr: float = 0.3,
        **options: Any,
    ) -> None:
        super().__init__(space, **{"rounds": 36, "exploration": None, **options})
        self.starts = starts
        self.steps = steps
        self.lr = lr
        self._check_options()

    def _check_options(self) -> None:
        super()._check_options()
        if not all(isinstance(n, (int, np.integer)) and n >= 1 for n in (self.starts, self.steps)):
            raise ValueError(
                f"starts and steps must be at least 1, but got {self.starts!r}, {self.steps!r}."
            )
        if not (isinstance(self.lr, (int, float, np.number)) and 0 < self.lr < math.inf):
            raise ValueError(
                f"the search must have as its lr a positive number, but got {self.lr!r:.80}."
            )

    @property
    def _batch(self) -> int:
        # What is believed of more proposals than these says less than their results will.
        return min(_LARGEST_ROUND, super()._batch)

    _kept = (*PredictorSearch._kept, "starts", "steps", "lr")
    _refines = True

    @property
    def _warps(self) -> bool:
        return self.pareto or (len(self.objectives) == 1 and self.cost is None)

    def _candidates(
        self, predictor: CodePredictor, samples: list[Sample], metrics: list[dict[str, float]]
    ) -> Array:
        from nni_aiop.search._propagation import propagate
        from nni_aiop.search._propagation_loss import Task

        order = np.argsort([-self._merit(m) for m in metrics], kind="stable")
        elite = self.space.points([samples[i] for i in order[: self.starts // 4]])
        starts = np.concatenate([elite, self._drawn_points(self.starts - len(elite))])
        run = propagate(
            self.space,
            [Task(predictor, o.metric, o.direction, o.weight) for o in self.objectives],
            self.space.encode_points(self.space.canonical_points(starts)),
            cost=self.cost,
            lam=self.lam,
            steps=self.steps,
            lr=self.lr,
            optimiser="adam",
            rounding="straight-through",
            limits=self.limits,
            book=self._book,
        )
        points, _ = run.visited
        best = self.space.points([samples[i] for i in order[:_ELITE]])
        more = np.concatenate([best, beside(self.space, best, _BESIDE, self._rng)])
        moved = more
        if len(more) > _MOVED:
            moved = more[np.sort(self._rng.choice(len(more), size=_MOVED, replace=False))]
        fine = perturbed(self.space, moved, _MOVES, (1.0, 0.2, 0.05, 0.01), self._rng)
        drawn = self._drawn_points(_FRESH)
        more = self.space.normalise(np.concatenate([more, fine, drawn]))
        found = np.concatenate([points, more])
        return np.asarray(found[distinct(found)[0]])
