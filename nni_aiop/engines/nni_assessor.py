"""An NNI assessor that predicts where a trial will end.

NNI's manager gives it ten seconds from its start to its first word, so nothing heavy (torch,
scikit-learn) is imported before the first trial is assessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from nni_aiop.engines._nni import importing_nni, numbers
from nni_aiop.errors import did_you_mean, refuse_unknown

if TYPE_CHECKING:
    from nni_aiop.predictors.tabular import EarlyStopping

with importing_nni():
    from nni.assessor import Assessor, AssessResult

__all__ = ["EarlyStoppingAssessor"]


#: The options of `EarlyStopping`, which is not imported yet, and what they must be.
_OPTIONS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "confidence": ("a number that lies in [0.5, 1)", lambda x: 0.5 <= x < 1),
    "startup": ("a whole number of at least 4", lambda x: x >= 4 and x == int(x)),
    "min_epochs": ("a whole number of at least 0", lambda x: x >= 0 and x == int(x)),
    "max_std": ("a positive number", lambda x: x > 0),
    "refit": ("a number of at least 0", lambda x: x >= 0),
    "regressor": ("a function of a seed", callable),
    "seed": ("a whole number", lambda x: x == int(x)),
}


def _check(mode: str, options: dict[str, Any]) -> None:
    modes = ("maximize", "minimize")
    if mode not in modes:
        raise ValueError(
            f"a direction must be maximize or minimize, but optimize_mode is {mode!r}"
            f"{did_you_mean(mode, modes)}."
        )
    refuse_unknown("EarlyStoppingAssessor", options, _OPTIONS)
    for name, value in options.items():
        rule, holds = _OPTIONS[name]
        plain = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (plain or name == "regressor") or not holds(value):
            raise ValueError(f"{name} must be {rule}, but got {value!r:.80}.")


class EarlyStoppingAssessor(Assessor):  # type: ignore[misc]
    """NNI's assessor that ends a trial which will hardly end better than the best so far.

    NNI tells an assessor neither parameters nor final results: it learns from the intermediate
    results alone, and takes the last one of a trial for its final value. Its arguments are the
    `classArgs` of an experiment file.

    Args:
        optimize_mode: Whether more is better, or less.
        options: Further arguments of `EarlyStopping`.

    Raises:
        TypeError, ValueError: An argument is unknown or illegal.
    """

    def __init__(
        self, optimize_mode: Literal["maximize", "minimize"] = "maximize", **options: Any
    ) -> None:
        super().__init__()
        _check(optimize_mode, options)
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
