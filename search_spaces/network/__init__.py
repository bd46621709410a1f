"""A trained network of the user's own as a space for NNI: its edits, each with its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_aiop._lazy import lazy_names

if TYPE_CHECKING:
    from nni_aiop.search_spaces.network._nni import FineTuneEvaluator as FineTuneEvaluator
    from nni_aiop.search_spaces.network._nni import NetworkSpace as NetworkSpace

__all__: list[str] = []

_LAZY = {
    "FineTuneEvaluator": "nni_aiop.search_spaces.network._nni",
    "NetworkSpace": "nni_aiop.search_spaces.network._nni",
}

__getattr__ = lazy_names(__name__, _LAZY)
