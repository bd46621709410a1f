"""An Optuna pruner that predicts where a trial will end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nni_aiop.engines.optuna_space import sample_of
from nni_aiop.errors import refuse_unknown
from nni_aiop.predictors.tabular import EarlyStopping, sample_features
from nni_aiop.search._options import check_value, options_of
from nni_aiop.spaces import CodeSpace

__all__ = ["EarlyStoppingPruner"]


class EarlyStoppingPruner(BasePruner):
    """Prunes a trial that will hardly end better than the best so far; see `EarlyStopping`.

    It learns from the completed trials what the values reported first say about the final one, and
    learns anew as more complete. It abstains where its forecast is too wide. A trial with a NaN
    goes on. With `min_epochs=0` and a space, an objective that asks `trial.should_prune()` before
    its first report is told what the scheme alone says.

    Args:
        space: Whose samples the trials are, for what is known of a network without training; None
            for the reports alone.
        scheme: Instead of a space, from a trial to such columns, as many for each trial.
        options: Further arguments of `EarlyStopping`; the direction is the study's.

    Raises:
        ValueError: An option is illegal, or a space and a scheme are given.
        TypeError: An option is unknown or of another type, or the space is no CodeSpace.

    Example:
        >>> study = optuna.create_study(pruner=EarlyStoppingPruner(space))  # doctest: +SKIP
    """

    def __init__(
        self,
        space: CodeSpace | None = None,
        *,
        scheme: Callable[[FrozenTrial], Sequence[float]] | None = None,
        **options: Any,
    ) -> None:
        if space is not None and scheme is not None:
            raise ValueError("what is known of a trial is a space or a scheme, but got both.")
        if not isinstance(space, (CodeSpace, type(None))):
            raise TypeError(f"a space must be a CodeSpace, but got {space!r:.80}.")
        if scheme is not None and not callable(scheme):
            raise TypeError(f"a scheme must be a function of a trial, but got {scheme!r:.80}.")
        # Wrong arguments are told here, not in the first trial.
        known = options_of(EarlyStopping)
        refuse_unknown("EarlyStoppingPruner", options, known)
        for name, value in options.items():
            check_value(name, value, known[name])
        EarlyStopping(**options)
        self.space = space
        self.scheme = scheme
        self.options = options
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._rules: dict[str, tuple[EarlyStopping, set[int]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Locks do not travel, and the rules are learned again from the study.
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_rules")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is stopped here."""
        with self._lock:
            rule = self._taught(study)
            curve = _reports(trial)
            return _finite(curve) and rule.decide(curve, self._columns(trial)).stop

    def _taught(self, study: Study) -> EarlyStopping:
        """The study's rule, which has learned from every completed trial."""
        if study.study_name not in self._rules:
            direction = study.direction.name.lower()
            rule = EarlyStopping(**{"direction": direction, **self.options})
            self._rules[study.study_name] = rule, set()
        rule, known = self._rules[study.study_name]
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if trial.number in known:
                continue
            known.add(trial.number)
            curve, final = _reports(trial), trial.value
            if final is not None and _finite([*curve, final]):
                rule.finish(curve, final, self._columns(trial))
        return rule

    def _columns(self, trial: FrozenTrial) -> Sequence[float]:
        if self.scheme is not None:
            return self.scheme(trial)
        if self.space is None:
            return ()
        columns: Sequence[float] = sample_features(
            self.space, sample_of(trial, self.space)
        ).tolist()
        return columns


def _reports(trial: FrozenTrial) -> list[float]:
    return [value for _, value in sorted(trial.intermediate_values.items())]


def _finite(values: Sequence[float]) -> bool:
    return bool(np.isfinite(np.asarray(values, dtype=np.float64)).all())
