"""Predictor-based neural architecture search for NNI and Optuna.

The names that one needs first are here, each imported when it is first used, and so are the rooms:
after `import nni_aiop`, `nni_aiop.strategies.NCPSampler` is there.

Example:
    >>> import nni_aiop
    >>> space = nni_aiop.get_space("nasbench201")
    >>> search = nni_aiop.NCPSearch(space, budget=20, limits={"flops": 5e7}, seed=0)
    >>> len(search.ask(4))
    4
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nni_aiop._lazy import lazy_names

if TYPE_CHECKING:
    from nni_aiop.errors import AiopError
    from nni_aiop.graphs import ComputeGraph, from_module, from_onnx
    from nni_aiop.networks import Network
    from nni_aiop.predictors.graph import load_shipped_ranker, load_shipped_task
    from nni_aiop.search import NCPSearch, Objective, PNAGSearch
    from nni_aiop.search_spaces import get_space
    from nni_aiop.spaces import CodeSpace, Continuous, Nominal, Ordinal

__version__ = "0.1.0"

# What stands in `strategies` keeps its room's name: NCP of NNI beside NCPSampler of Optuna.
_MODULES = {
    "AiopError": "nni_aiop.errors",
    "CodeSpace": "nni_aiop.spaces",
    "ComputeGraph": "nni_aiop.graphs",
    "Continuous": "nni_aiop.spaces",
    "NCPSearch": "nni_aiop.search",
    "Network": "nni_aiop.networks",
    "Nominal": "nni_aiop.spaces",
    "Objective": "nni_aiop.search",
    "Ordinal": "nni_aiop.spaces",
    "PNAGSearch": "nni_aiop.search",
    "from_module": "nni_aiop.graphs",
    "from_onnx": "nni_aiop.graphs",
    "get_space": "nni_aiop.search_spaces",
    "load_shipped_ranker": "nni_aiop.predictors.graph",
    "load_shipped_task": "nni_aiop.predictors.graph",
}

_ROOMS = (
    "benchmarks",
    "errors",
    "evaluators",
    "generators",
    "graphs",
    "latency",
    "measures",
    "networks",
    "predictors",
    "results",
    "search",
    "search_spaces",
    "spaces",
    "strategies",
    "supernet",
    "zero_cost",
)

__all__ = [
    "AiopError",
    "CodeSpace",
    "ComputeGraph",
    "Continuous",
    "NCPSearch",
    "Network",
    "Nominal",
    "Objective",
    "Ordinal",
    "PNAGSearch",
    "from_module",
    "from_onnx",
    "get_space",
    "load_shipped_ranker",
    "load_shipped_task",
]

_find = lazy_names(__name__, _MODULES)


def __getattr__(name: str) -> Any:
    return import_module(f"{__name__}.{name}") if name in _ROOMS else _find(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
