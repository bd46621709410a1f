"""NNI evaluators: what measures a sample in an experiment. They need NNI.

A name is imported when it is first used, so that the rest of the package works without NNI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_aiop._lazy import lazy_names

if TYPE_CHECKING:
    from nni_aiop.engines.nni_evaluators import (
        PredictedEvaluator,
        SampleEvaluator,
        TableEvaluator,
    )
    from nni_aiop.search_spaces.digits import DigitsEvaluator

# Each stands beside what it wraps; here is only the door, so that nothing is imported upwards.
_MODULES = {
    "DigitsEvaluator": "nni_aiop.search_spaces.digits",
    "PredictedEvaluator": "nni_aiop.engines.nni_evaluators",
    "SampleEvaluator": "nni_aiop.engines.nni_evaluators",
    "TableEvaluator": "nni_aiop.engines.nni_evaluators",
}

__all__ = ["DigitsEvaluator", "PredictedEvaluator", "SampleEvaluator", "TableEvaluator"]

__getattr__ = lazy_names(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
