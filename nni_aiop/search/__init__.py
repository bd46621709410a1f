"""The searches, engine-free: ask for samples, evaluate them anyhow, tell the results."""

from nni_aiop.search._base import BaseSearch, Objective, Search
from nni_aiop.search._baselines import RandomSearch, RegularizedEvolution
from nni_aiop.search._drawing import draw_propagation
from nni_aiop.search._limits import repair
from nni_aiop.search._predictor_based import (
    NCPSearch,
    PredictorSearch,
    PredictorTopK,
    RandomWarmup,
)
from nni_aiop.search._propagation import Propagation, Task, propagate

__all__ = [
    "BaseSearch",
    "NCPSearch",
    "Objective",
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
