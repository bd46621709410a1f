"""Objectives for Optuna that answer without training."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from optuna.trial import BaseTrial

from nni_aiop.engines._optuna_session import METRICS
from nni_aiop.engines.optuna_space import suggest
from nni_aiop.measures import GraphMeasure
from nni_aiop.spaces import CodeSpace

if TYPE_CHECKING:
    from nni_aiop.predictors.graph import GraphPredictor, TransferredPredictor

__all__ = ["graph_objective"]


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
    measure = GraphMeasure(predictor, space, adapter=adapter, metric=metric)

    def objective(trial: BaseTrial) -> float:
        metrics = measure(space.complete(suggest(trial, space)))
        trial.set_user_attr(METRICS, metrics)
        return metrics["default"]

    return objective
