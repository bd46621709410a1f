"""An NNI assessor that predicts where a trial will end.

NNI's manager gives it ten seconds from its start to its first word, so nothing heavy (torch,
scikit-learn) is imported before the first trial is assessed.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from nni_aiop.engines._nni import importing_nni, numbers

if TYPE_CHECKING:
    from nni_aiop.predictors.tabular import EarlyStopping

with importing_nni():
    from nni.assessor import Assessor, AssessResult

__all__ = ["EarlyStoppingAssessor"]


class EarlyStoppingAssessor(Assessor):  # type: ignore[misc]
    """NNI's assessor that ends a trial which will hardly end better than the best so far.

    NNI tells an assessor neither parameters nor final results: it learns from the intermediate
    results alone, and takes the last one of a trial for its final value. Its arguments are the
    `classArgs` of an experiment file.

    Args:
        optimize_mode: Whether more is better, or less.
        options: Further arguments of `EarlyStopping`.

    Raises:
        ValueError: An argument is illegal; raised when the first trial is assessed.
    """

    def __init__(
        self, optimize_mode: Literal["maximize", "minimize"] = "maximize", **options: Any
    ) -> None:
        super().__init__()
        self.optimize_mode = optimize_mode
        self.options = options
        self._curves: dict[str, list[float]] = {}

    @cached_property
    def rule(self) -> EarlyStopping:
        """What decides; it has learned from the trials that ended."""
        from nni_aiop.predictors.tabular import EarlyStopping

        return EarlyStopping(direction=self.optimize_mode, **self.options)

    def assess_trial(self, trial_job_id: str, trial_history: list[Any]) -> AssessResult:
        """Good, or Bad where the trial is to be ended; a trial with a NaN goes on."""
        curve = [numbers(metric).get("default", math.nan) for metric in trial_history]
        self._curves[trial_job_id] = curve
        stop = all(map(math.isfinite, curve)) and self.rule.decide(curve).stop
        return AssessResult.Bad if stop else AssessResult.Good

    def trial_end(self, trial_job_id: str, success: bool) -> None:
        """Learn from a trial that came to its end."""
        curve = self._curves.pop(trial_job_id, [])
        if success and curve and all(map(math.isfinite, curve)):
            self.rule.finish(curve, curve[-1])
