"""The searches as NNI strategies and as Optuna samplers; early stopping for both; many workers.

A name is imported when it is first used: without NNI installed the Optuna half works, and the NNI
half says how to install it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_aiop._lazy import lazy_names

if TYPE_CHECKING:
    from nni_aiop.engines.nni_assessor import EarlyStoppingAssessor
    from nni_aiop.engines.optuna_pruner import EarlyStoppingPruner
    from nni_aiop.engines.optuna_storage import open_storage
    from nni_aiop.engines.optuna_together import optimize_together
    from nni_aiop.strategies._nni import (
        NCP,
        PNAG,
        FlopsReduction,
        LocalSearch,
        PredictorTopK,
        RandomSearch,
        RegularizedEvolution,
        SearchStrategy,
    )
    from nni_aiop.strategies._nni_tuner import NCPTuner, SearchTuner
    from nni_aiop.strategies._optuna import (
        FlopsReductionSampler,
        NCPSampler,
        PNAGSampler,
        SearchSampler,
    )

_MODULES = {
    "EarlyStoppingAssessor": "nni_aiop.engines.nni_assessor",
    "EarlyStoppingPruner": "nni_aiop.engines.optuna_pruner",
    "FlopsReduction": "nni_aiop.strategies._nni",
    "FlopsReductionSampler": "nni_aiop.strategies._optuna",
    "LocalSearch": "nni_aiop.strategies._nni",
    "NCP": "nni_aiop.strategies._nni",
    "NCPSampler": "nni_aiop.strategies._optuna",
    "NCPTuner": "nni_aiop.strategies._nni_tuner",
    "PNAG": "nni_aiop.strategies._nni",
    "PNAGSampler": "nni_aiop.strategies._optuna",
    "PredictorTopK": "nni_aiop.strategies._nni",
    "RandomSearch": "nni_aiop.strategies._nni",
    "RegularizedEvolution": "nni_aiop.strategies._nni",
    "SearchSampler": "nni_aiop.strategies._optuna",
    "SearchStrategy": "nni_aiop.strategies._nni",
    "SearchTuner": "nni_aiop.strategies._nni_tuner",
    "open_storage": "nni_aiop.engines.optuna_storage",
    "optimize_together": "nni_aiop.engines.optuna_together",
}

__all__ = [
    "NCP",
    "PNAG",
    "EarlyStoppingAssessor",
    "EarlyStoppingPruner",
    "FlopsReduction",
    "FlopsReductionSampler",
    "LocalSearch",
    "NCPSampler",
    "NCPTuner",
    "PNAGSampler",
    "PredictorTopK",
    "RandomSearch",
    "RegularizedEvolution",
    "SearchSampler",
    "SearchStrategy",
    "SearchTuner",
    "open_storage",
    "optimize_together",
]

__getattr__ = lazy_names(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
