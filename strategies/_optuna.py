"""Network coding propagation as an Optuna sampler."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from nni_aiop.engines.optuna_sampler import SearchSampler
from nni_aiop.errors import SpaceError
from nni_aiop.search import FlopsReduction, NCPSearch, Objective, PNAGSearch
from nni_aiop.search._options import check_options
from nni_aiop.spaces import CodeSpace, MutationSpace, Sample, SampleCost
from nni_aiop.strategies._options import NCPOptions, PNAGOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from nni_aiop.graphs import ComputeGraph

__all__ = ["FlopsReductionSampler", "NCPSampler", "PNAGSampler", "SearchSampler"]


class NCPSampler(SearchSampler):
    """Optuna's sampler of network coding propagation (Ding et al. 2022), in rounds.

    Random trials come first; then, in rounds, a predictor is fitted on what has completed, many
    codes are propagated through it, and the best of all visited ones become the next trials.
    The study's directions and metric names are the objectives. See `SearchSampler` for how trials
    that fail, are enqueued, or run in parallel are handled, and `NCPSearch` for the search.

    Args:
        space: A CodeSpace, an NNI ModelSpace, or None to learn it from completed trials.
        weights: Weights of the objectives (below Eq. 7); equal ones by default.
        pareto: Spread the proposals over the Pareto front; by default where there are several
            objectives and no weights.
        seed: Of every random choice; None for a fresh one.
        graph: See `SearchSampler`; it gives `limits` the exact costs of the networks.
        costs: See `SearchSampler`.
        stale_after: See `SearchSampler`; seconds.
        options: Further arguments of `NCPSearch`, `budget` above all; see `NCPOptions`. A cost that
            the space does not have is a metric that the objective leaves in the user attribute
            `metrics` of its trial.

    Raises:
        SpaceError: Limits are given without a space, graph or costs that know them, or name a cost
            that the space does not have.
        TypeError, ValueError: An option is unknown or illegal.

    Example:
        >>> import optuna
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study(direction="maximize", sampler=NCPSampler(seed=0))
        >>> study.optimize(lambda trial: -trial.suggest_int("depth", 1, 4), n_trials=3)
        >>> len({trial.params["depth"] for trial in study.trials})
        3
    """

    def __init__(
        self,
        space: Any = None,
        *,
        weights: Sequence[float] | None = None,
        pareto: bool | None = None,
        seed: int | None = None,
        graph: Callable[[Mapping[str, Any]], ComputeGraph] | None = None,
        costs: Mapping[str, SampleCost | Callable[[Sample], Any]] | None = None,
        stale_after: float | None = None,
        **options: Unpack[NCPOptions],
    ) -> None:
        check_options(NCPSearch, options)
        weights = _checked_weights(weights)
        if pareto is not None and not isinstance(pareto, bool):
            raise TypeError(f"pareto must be True, False or None, but got {pareto!r}.")
        make: Callable[..., NCPSearch] = partial(_search, weights=weights, pareto=pareto, **options)
        super().__init__(make, space, seed=seed, graph=graph, costs=costs, stale_after=stale_after)
        _require_known(space, options.get("limits"), self._costs)
        if self._space is not None:
            # Wrong arguments are told here, not in the first trial.
            names = [f"objective_{i}" for i in range(len(weights or (1.0,)))]
            make(self._space, objectives=[Objective(name) for name in names], seed=0)


def _checked_weights(weights: Sequence[float] | None) -> tuple[float, ...] | None:
    """The weights of objectives.

    Raises:
        ValueError: One is not a positive number.
    """
    if weights is None:
        return None
    try:
        return tuple(Objective("weighed", weight=w).weight for w in weights)
    except TypeError as err:
        raise ValueError(f"weights must be positive numbers, but got {weights!r}.") from err


def _search(
    space: CodeSpace,
    *,
    objectives: Sequence[Objective],
    weights: Sequence[float] | None,
    pareto: bool | None,
    **options: Any,
) -> NCPSearch:
    if weights is not None:
        if len(weights) != len(objectives):
            raise ValueError(
                f"there must be one weight per objective ({len(objectives)}), but got {weights}."
            )
        objectives = [replace(o, weight=w) for o, w in zip(objectives, weights, strict=True)]
    if pareto is None:
        pareto = len(objectives) > 1 and weights is None
    return NCPSearch(space, objectives=objectives, pareto=pareto, **options)


class PNAGSampler(SearchSampler):
    """Optuna's sampler of Pareto-aware generation (Guo et al. 2022), in rounds.

    Random trials come first; then, in rounds, a generator learns from what has completed which
    architectures are best under which budget, and proposes the next trials: at one budget with
    `targets` or `limits`, else at budgets spread over the Pareto front of `cost`, or of the
    objectives that a multi-objective study minimises beside the one that it maximises. See
    `SearchSampler` for how trials that fail, are enqueued, or run in parallel are handled, and
    `PNAGSearch` for the search.

    Args:
        space: A CodeSpace, an NNI ModelSpace, or None to learn it from completed trials.
        seed: Of every random choice; None for a fresh one.
        graph: See `SearchSampler`; it gives `limits` and `targets` the exact costs of the networks.
        costs: See `SearchSampler`.
        stale_after: See `SearchSampler`; seconds.
        options: Further arguments of `PNAGSearch`, `budget` above all; see `PNAGOptions`. A cost
            that the space does not have is an objective of the study, or a metric that the
            objective leaves in the user attribute `metrics` of its trial.

    Raises:
        SpaceError: Limits are given without a space, graph or costs that know them, or name a cost
            that the space does not have.
        TypeError, ValueError: An option is unknown or illegal.

    Example:
        >>> import optuna
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study(direction="maximize", sampler=PNAGSampler(seed=0))
        >>> study.optimize(lambda trial: -trial.suggest_int("depth", 1, 4), n_trials=3)
        >>> len({trial.params["depth"] for trial in study.trials})
        3
    """

    def __init__(
        self,
        space: Any = None,
        *,
        seed: int | None = None,
        graph: Callable[[Mapping[str, Any]], ComputeGraph] | None = None,
        costs: Mapping[str, SampleCost | Callable[[Sample], Any]] | None = None,
        stale_after: float | None = None,
        **options: Unpack[PNAGOptions],
    ) -> None:
        check_options(PNAGSearch, options)
        make: Callable[..., PNAGSearch] = partial(PNAGSearch, **options)
        super().__init__(make, space, seed=seed, graph=graph, costs=costs, stale_after=stale_after)
        _require_known(space, options.get("limits"), self._costs)
        if self._space is not None:
            make(self._space, seed=0)  # wrong arguments are told here, not in the first trial


class FlopsReductionSampler(SearchSampler):
    """Optuna's sampler of edits that shrink a network to parts of its multiply-adds.

    Uniform pruning comes first, then what a descent by the measured loss finds, then mutations of
    the best trials; every proposal keeps its budget. The objective suggests the labels of the space
    (`engines.optuna_space.suggest`), edits the network, fine-tunes it and returns what it reached.
    See `SearchSampler` for how trials that fail, are enqueued, or run in parallel are handled, and
    `search.FlopsReduction` for the search.

    Args:
        space: The edits: a `MutationSpace`, such as `Calibration.space`.
        budgets: Parts of the network's cost to stay within; several give a front.
        cost: Which cost: "flops" (multiply-adds), "params", "peak_memory".
        score: The measured loss of a sample, less is better, such as `Calibration.loss`.
        predictor: See `search.FlopsReduction`.
        seed: Of every random choice; None for a fresh one.
        stale_after: See `SearchSampler`; seconds.

    Raises:
        SpaceError: The space does not have the cost.
        ValueError: A budget is not in (0, 1], or the space is not one of mutations.

    Example:
        >>> import optuna
        >>> from nni_aiop.engines.optuna_space import suggest
        >>> sampler = FlopsReductionSampler(space, budgets=[0.7])  # doctest: +SKIP
        >>> def objective(trial):
        ...     return fine_tune(calibration.edit(suggest(trial, space)))
        >>> study = optuna.create_study(direction="maximize", sampler=sampler)  # doctest: +SKIP
        >>> study.optimize(objective, n_trials=8)  # doctest: +SKIP
    """

    def __init__(
        self,
        space: MutationSpace,
        *,
        budgets: Sequence[float] = (0.865,),
        cost: str = "flops",
        score: Callable[[Sample], float] | None = None,
        predictor: Callable[[Sequence[ComputeGraph]], Sequence[float]] | None = None,
        seed: int | None = None,
        stale_after: float | None = None,
    ) -> None:
        make: Callable[..., FlopsReduction] = partial(
            _reduction, budgets=budgets, cost=cost, score=score, predictor=predictor
        )
        make(space, objectives=["default"], seed=0)  # wrong arguments are told here
        super().__init__(make, space, seed=seed, stale_after=stale_after)


def _reduction(space: CodeSpace, **options: Any) -> FlopsReduction:
    return FlopsReduction(space, **options)


def _require_known(
    space: Any, limits: Mapping[str, float] | None, costs: Mapping[str, object]
) -> None:
    if space is None and limits and not limits.keys() <= costs.keys():
        known = f", or one of {', '.join(costs)}" if costs else ""
        raise SpaceError(
            f"limits need a space that knows its costs (or graph=, costs=){known}, "
            f"but got {dict(limits)}."
        )
