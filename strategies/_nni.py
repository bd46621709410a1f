"""The searches as NAS strategies of NNI."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from nni_aiop import search
from nni_aiop.engines.nni_strategy import SearchStrategy
from nni_aiop.search import Objective, RandomWarmup
from nni_aiop.spaces import CodeSpace

if TYPE_CHECKING:
    from nni_aiop.predictors import CodePredictor

__all__ = ["NCP", "PredictorTopK", "RandomSearch", "RegularizedEvolution", "SearchStrategy"]


class NCP(SearchStrategy):
    """NNI's strategy of network coding propagation (Ding et al. 2022), in rounds.

    Random models come first; then, in rounds, a predictor is fitted on what was measured, many
    codes are propagated through it, and the best of all visited ones become the next models.

    Args:
        budget: Number of models that warm-up and rounds are planned for; a longer experiment goes
            on in rounds of the same size.
        warmup: Random models before the first fit.
        rounds: Number of fits within the budget.
        objectives: Metrics of the final result to improve; a name stands for one to maximise.
        cost: A cost to hold down: an exact one of the space, or else a metric that is reported.
        lam: Weight of the standardised cost (lambda of Eq. 3).
        limits: Hard upper limits on the space's exact costs: no model above one is ever evaluated.
        seed: Of every random choice.
        predictor: From a space and a seed to an unfitted predictor.
        state: See `SearchStrategy`.
        max_trials: See `SearchStrategy`.
        on_result: See `SearchStrategy`.
        options: Further arguments of `NCPSearch`.

    Example:
        >>> from nni.nas.experiment import NasExperiment  # doctest: +SKIP
        >>> NasExperiment(space, evaluator, NCP(budget=40, seed=0)).run(8080)  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        budget: int = 100,
        warmup: RandomWarmup | None = None,
        rounds: int = 6,
        objectives: Sequence[Objective | str] = ("default",),
        cost: str | None = None,
        lam: float = 0.5,
        limits: Mapping[str, float] | None = None,
        seed: int = 0,
        predictor: Callable[[CodeSpace, int], CodePredictor] | None = None,
        state: str | os.PathLike[str] | None = None,
        max_trials: int | None = None,
        on_result: Callable[[dict[str, Any], dict[str, float] | None], None] | None = None,
        **options: Any,
    ) -> None:
        make = partial(
            search.NCPSearch,
            budget=budget,
            warmup=warmup or RandomWarmup(),
            rounds=rounds,
            objectives=objectives,
            cost=cost,
            lam=lam,
            limits=limits,
            seed=seed,
            predictor=predictor,
            **options,
        )
        super().__init__(make, state=state, max_trials=max_trials, on_result=on_result)


class _Plain(SearchStrategy):
    """A strategy whose arguments are those of its search, and those of `SearchStrategy`."""

    _search: type[search.BaseSearch]

    def __init__(
        self,
        *,
        state: str | os.PathLike[str] | None = None,
        max_trials: int | None = None,
        on_result: Callable[[dict[str, Any], dict[str, float] | None], None] | None = None,
        **options: Any,
    ) -> None:
        make = partial(self._search, **options)
        super().__init__(make, state=state, max_trials=max_trials, on_result=on_result)


class RandomSearch(_Plain):
    """`nni_aiop.search.RandomSearch` as NNI's strategy; takes its arguments."""

    _search = search.RandomSearch


class RegularizedEvolution(_Plain):
    """`nni_aiop.search.RegularizedEvolution` as NNI's strategy; takes its arguments."""

    _search = search.RegularizedEvolution


class PredictorTopK(_Plain):
    """`nni_aiop.search.PredictorTopK` as NNI's strategy; takes its arguments."""

    _search = search.PredictorTopK
