"""Objectives for Optuna that answer without training each network."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from optuna.trial import BaseTrial

from nni_aiop.engines._optuna_session import METRICS
from nni_aiop.engines.optuna_space import suggest
from nni_aiop.measures import GraphMeasure, Measure, SupernetMeasure
from nni_aiop.spaces import CodeSpace

if TYPE_CHECKING:
    from nni_aiop.predictors.graph import GraphPredictor, TransferredPredictor
    from nni_aiop.supernet import Labelling, Supernet, SupernetData

__all__ = ["graph_objective", "supernet_objective"]


def graph_objective(
    space: CodeSpace,
    predictor: str | os.PathLike[str] | GraphPredictor | TransferredPredictor,
    *,
    adapter: str | os.PathLike[str] | None = None,
    metric: str | None = None,
) -> Callable[[BaseTrial], float]:
    """An objective of Optuna's that asks a graph predictor: no network is built.

    It suggests a sample of the space, so that any sampler serves, and leaves all predicted metrics
    with their standard deviations in the user attribute `metrics` of the trial.

    Args:
        space: One that draws the graphs of its samples (`CodeSpace.graph`).
        predictor: As `nni_aiop.measures.GraphMeasure` takes it.
        adapter: As there.
        metric: Which predicted metric is returned; the first one by default.

    Raises:
        AiopError: The predictor has no such metric.
        FileFormatError: A file is damaged, or the adapter is of another backbone.
        SpaceError: The space draws no graphs.

    Example:
        >>> objective = graph_objective(space, "predictor.safetensors")  # doctest: +SKIP
        >>> study.optimize(objective, n_trials=100)  # doctest: +SKIP
    """
    return _objective(space, GraphMeasure(predictor, space, adapter=adapter, metric=metric))


def supernet_objective(
    supernet: Supernet,
    data: SupernetData | Sequence[Any] | None = None,
    *,
    labelling: Labelling | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Callable[[BaseTrial], float]:
    """An objective of Optuna's that labels networks by the shared weights of a supernet.

    It suggests a sample of the supernet's space, so that any sampler serves, and leaves the label
    under its own name, too, in the user attribute `metrics` of the trial.

    Args:
        supernet: As `nni_aiop.measures.SupernetMeasure` takes it.
        data: As there.
        labelling: As there.
        path: As there.

    Raises:
        FileFormatError: The file is damaged, or of a supernet of another space or kind.
        ValueError: There is no data.

    Example:
        >>> objective = supernet_objective(digits.supernet(seed=0), path=file)  # doctest: +SKIP
        >>> study.optimize(objective, n_trials=100)  # doctest: +SKIP
    """
    measure = SupernetMeasure(supernet, data, labelling=labelling, path=path)
    return _objective(supernet.space, measure)


def _objective(space: CodeSpace, measure: Measure) -> Callable[[BaseTrial], float]:
    def objective(trial: BaseTrial) -> float:
        metrics = dict(measure(space.complete(suggest(trial, space))))
        trial.set_user_attr(METRICS, metrics)
        return metrics["default"]

    return objective
