"""The searches, engine-free: ask for samples, evaluate them anyhow, tell the results.

Propagation itself (`propagate`, `Task`, `Propagation`, `draw_propagation`) needs torch, which is
imported when one of these names is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nni_aiop.search._base import BaseSearch, Objective, Search
from nni_aiop.search._baselines import RandomSearch, RegularizedEvolution
from nni_aiop.search._limits import repair
from nni_aiop.search._predictor_based import (
    NCPSearch,
    PredictorSearch,
    PredictorTopK,
    RandomWarmup,
)

if TYPE_CHECKING:
    from nni_aiop.search._drawing import draw_propagation
    from nni_aiop.search._propagation import Propagation, Task, propagate

_LAZY = {
    "Propagation": "_propagation",
    "Task": "_propagation",
    "draw_propagation": "_drawing",
    "propagate": "_propagation",
}

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


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"nni_aiop.search.{_LAZY[name]}"), name)
