"""The searches, engine-free: ask for samples, evaluate them anyhow, tell the results.

Propagation itself (`propagate`, `Task`, `Propagation`, `draw_propagation`) needs torch, which is
imported when one of these names is first used.
"""

from typing import TYPE_CHECKING

from nni_aiop._lazy import lazy_names
from nni_aiop.search._base import BaseSearch, Search
from nni_aiop.search._baselines import LocalSearch, RandomSearch, RegularizedEvolution
from nni_aiop.search._metrics import Objective
from nni_aiop.search._ncp import NCPSearch
from nni_aiop.search._pnag import PNAGSearch
from nni_aiop.search._predictor_based import PredictorSearch, RandomWarmup
from nni_aiop.search._reduction import FlopsReduction
from nni_aiop.search._top_k import PredictorTopK
from nni_aiop.spaces import repair

if TYPE_CHECKING:
    from nni_aiop.search._drawing import draw_propagation
    from nni_aiop.search._propagation import Propagation, propagate
    from nni_aiop.search._propagation_loss import Task

_LAZY = {
    "Propagation": "nni_aiop.search._propagation",
    "Task": "nni_aiop.search._propagation_loss",
    "draw_propagation": "nni_aiop.search._drawing",
    "propagate": "nni_aiop.search._propagation",
}

__all__ = [
    "BaseSearch",
    "FlopsReduction",
    "LocalSearch",
    "NCPSearch",
    "Objective",
    "PNAGSearch",
    "PredictorSearch",
    "PredictorTopK",
    "Propagation",
    "RandomSearch",
    "RandomWarmup",
    "RegularizedEvolution",
    "Search",
    "Task",
    "draw_propagation",
    "propagate",
    "repair",
]

__getattr__ = lazy_names(__name__, _LAZY)
