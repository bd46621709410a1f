"""The searches as NAS strategies of NNI."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

from nni_aiop import search
from nni_aiop.engines.nni_strategy import SearchStrategy
from nni_aiop.search._options import check_options
from nni_aiop.spaces import Sample, SampleCost
from nni_aiop.strategies._options import NCPOptions, PNAGOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "NCP",
    "PNAG",
    "FlopsReduction",
    "LocalSearch",
    "PredictorTopK",
    "RandomSearch",
    "RegularizedEvolution",
    "SearchStrategy",
]


class _Strategy(SearchStrategy):
    """A strategy whose arguments are those of its search, and those of `SearchStrategy`."""

    _search: type[search.BaseSearch]

    def __init__(
        self,
        *,
        state: str | os.PathLike[str] | None = None,
        max_trials: int | None = None,
        on_result: Callable[[Sample, dict[str, float] | None], None] | None = None,
        example: Any = None,
        costs: Mapping[str, SampleCost | Callable[[Sample], Any]] | None = None,
        **options: Any,
    ) -> None:
        check_options(self._search, options)
        super().__init__(
            partial(self._search, **options),
            state=state,
            max_trials=max_trials,
            on_result=on_result,
            example=example,
            costs=costs,
        )


class _Arguments(TypedDict, total=False):
    objectives: Sequence[search.Objective | str]
    seed: int
    state: str | os.PathLike[str] | None
    max_trials: int | None
    on_result: Callable[[Sample, dict[str, float] | None], None] | None
    example: Any
    costs: Mapping[str, SampleCost | Callable[[Sample], Any]] | None


class _NCPArguments(NCPOptions, _Arguments, total=False):
    pareto: bool


class NCP(_Strategy):
    """NNI's strategy of network coding propagation (Ding et al. 2022), in rounds.

    Random models come first; then, in rounds, a predictor is fitted on what was measured, many
    codes are propagated through it, and the best of all visited ones become the next models.

    Args:
        objectives: Metrics of the final result to improve; a name stands for one to maximise. Only
            `default` where left out.
        seed: Of every random choice.
        pareto: Spread the proposals over the Pareto front of several objectives.
        state: See `SearchStrategy`.
        max_trials: See `SearchStrategy`.
        on_result: See `SearchStrategy`.
        example: See `SearchStrategy`; it gives `limits` the exact costs of the networks.
        costs: See `SearchStrategy`.
        options: Further arguments of `NCPSearch`, `budget` above all; see `NCPOptions`.

    Example:
        >>> from nni.nas.experiment import NasExperiment  # doctest: +SKIP
        >>> NasExperiment(space, evaluator, NCP(budget=40, seed=0)).run(8080)  # doctest: +SKIP
    """

    _search = search.NCPSearch

    def __init__(self, **options: Unpack[_NCPArguments]) -> None:
        super().__init__(**options)


class _PNAGArguments(PNAGOptions, _Arguments, total=False):
    """Arguments of `PNAG`."""


class PNAG(_Strategy):
    """NNI's strategy of Pareto-aware generation (Guo et al. 2022), in rounds.

    Random models come first; then, in rounds, a generator learns from what was measured which
    architectures are best under which budget, and writes the next models: at budgets spread over
    the front, or at the one of `targets` or `limits`.

    Args:
        objectives: Metrics of the final result to improve; a name stands for one to maximise, and
            one that is minimised beside it has budgets. Only `default` where left out.
        seed: Of every random choice.
        state: See `SearchStrategy`.
        max_trials: See `SearchStrategy`.
        on_result: See `SearchStrategy`.
        example: See `SearchStrategy`; it gives `limits` the exact costs of the networks.
        costs: See `SearchStrategy`.
        options: Further arguments of `PNAGSearch`, `budget` above all; see `PNAGOptions`.

    Example:
        >>> from nni.nas.experiment import NasExperiment  # doctest: +SKIP
        >>> strategy = PNAG(budget=40, cost="flops", seed=0)  # doctest: +SKIP
        >>> NasExperiment(space, evaluator, strategy).run(8080)  # doctest: +SKIP
    """

    _search = search.PNAGSearch

    def __init__(self, **options: Unpack[_PNAGArguments]) -> None:
        super().__init__(**options)


class FlopsReduction(_Strategy):
    """`nni_aiop.search.FlopsReduction` as NNI's strategy; takes its arguments.

    The space is `search_spaces.network.NetworkSpace`, the edits of a trained network.

    Example:
        >>> space = NetworkSpace("net:make", (1, 3, 224, 224))  # doctest: +SKIP
        >>> evaluator = FineTuneEvaluator("net:fine_tune")  # doctest: +SKIP
        >>> strategy = FlopsReduction(budgets=[0.865])  # doctest: +SKIP
        >>> run_nni(space, evaluator, strategy, max_trials=8, out_dir="out")  # doctest: +SKIP
    """

    _search = search.FlopsReduction


class LocalSearch(_Strategy):
    """`nni_aiop.search.LocalSearch` as NNI's strategy; takes its arguments."""

    _search = search.LocalSearch


class RandomSearch(_Strategy):
    """`nni_aiop.search.RandomSearch` as NNI's strategy; takes its arguments."""

    _search = search.RandomSearch


class RegularizedEvolution(_Strategy):
    """`nni_aiop.search.RegularizedEvolution` as NNI's strategy; takes its arguments."""

    _search = search.RegularizedEvolution


class PredictorTopK(_Strategy):
    """`nni_aiop.search.PredictorTopK` as NNI's strategy; takes its arguments."""

    _search = search.PredictorTopK
