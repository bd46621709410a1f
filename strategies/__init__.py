"""The searches as NNI strategies and as Optuna samplers.

A name is imported when it is first used: without NNI installed the Optuna half works, and the NNI
half says how to install it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nni_aiop.strategies._optuna import NCPSampler, SearchSampler

_MODULES = {
    "NCPSampler": "nni_aiop.strategies._optuna",
    "SearchSampler": "nni_aiop.strategies._optuna",
}

__all__ = ["NCPSampler", "SearchSampler"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
