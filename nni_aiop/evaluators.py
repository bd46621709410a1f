"""What measures a sample in an experiment: NNI evaluators, and objectives for Optuna.

A name is imported when it is first used, so that the rest of the package works without NNI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_aiop._lazy import lazy_names

if TYPE_CHECKING:
    from nni_aiop.engines.nni_early_stopping import EarlyStoppingEvaluator
    from nni_aiop.engines.nni_evaluators import (
        GraphPredictorEvaluator,
        PredictedEvaluator,
        SampleEvaluator,
        SupernetEvaluator,
        TableEvaluator,
    )
    from nni_aiop.engines.optuna_objectives import graph_objective, supernet_objective
    from nni_aiop.search_spaces.digits import DigitsEvaluator
    from nni_aiop.search_spaces.network import FineTuneEvaluator

# Each stands beside what it wraps; here is only the door, so that nothing is imported upwards.
_MODULES = {
    "DigitsEvaluator": "nni_aiop.search_spaces.digits",
    "EarlyStoppingEvaluator": "nni_aiop.engines.nni_early_stopping",
    "FineTuneEvaluator": "nni_aiop.search_spaces.network",
    "GraphPredictorEvaluator": "nni_aiop.engines.nni_evaluators",
    "PredictedEvaluator": "nni_aiop.engines.nni_evaluators",
    "SampleEvaluator": "nni_aiop.engines.nni_evaluators",
    "SupernetEvaluator": "nni_aiop.engines.nni_evaluators",
    "TableEvaluator": "nni_aiop.engines.nni_evaluators",
    "graph_objective": "nni_aiop.engines.optuna_objectives",
    "supernet_objective": "nni_aiop.engines.optuna_objectives",
}

__all__ = [
    "DigitsEvaluator",
    "EarlyStoppingEvaluator",
    "FineTuneEvaluator",
    "GraphPredictorEvaluator",
    "PredictedEvaluator",
    "SampleEvaluator",
    "SupernetEvaluator",
    "TableEvaluator",
    "graph_objective",
    "supernet_objective",
]

__getattr__ = lazy_names(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
