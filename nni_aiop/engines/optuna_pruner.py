"""An Optuna pruner that predicts where a trial will end."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nni_aiop.engines.optuna_space import sample_of
from nni_aiop.errors import SpaceError, refuse_unknown
from nni_aiop.predictors.tabular import EarlyStopping, sample_features
from nni_aiop.search._options import check_value, options_of
from nni_aiop.spaces import CodeSpace

__all__ = ["EarlyStoppingPruner"]


class EarlyStoppingPruner(BasePruner):
    """Prunes a trial that will hardly end better than the best so far; see `EarlyStopping`.

    It learns from the completed trials what the values reported first say about the final one, and
    learns anew as more complete. It abstains where its forecast is too wide. A trial with a NaN
    goes on. Of a trial with a value that its space does not have only the reports are looked at, as
    of all trials without a space, and a warning says so once. With `min_epochs=0` and a space, an
    objective that asks `trial.should_prune()` before its first report is told what the scheme alone
    says.

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
        self._rules: dict[str, _Rules] = {}
        self._warned = False

    def __getstate__(self) -> dict[str, Any]:
        # Locks do not travel, and the rules are learned again from the study.
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_rules", "_warned")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is stopped here."""
        with self._lock:
            rules = self._taught(study)
            curve, columns = _reports(trial), self._columns(trial)
            if not _finite(curve):
                return False
            if columns is None:
                return rules.alone.decide(curve).stop
            return rules.whole.decide(curve, columns).stop

    def _taught(self, study: Study) -> _Rules:
        """The study's rules, which have learned from every completed trial."""
        rules = self._rules.get(study.study_name)
        if rules is None:
            direction = study.direction.name.lower()
            whole, alone = (
                EarlyStopping(**{"direction": direction, **self.options}) for _ in range(2)
            )
            rules = self._rules[study.study_name] = _Rules(whole, alone, set())
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if trial.number in rules.known:
                continue
            rules.known.add(trial.number)
            curve, final = _reports(trial), trial.value
            if final is None or not _finite([*curve, final]):
                continue
            columns = self._columns(trial)
            rules.alone.finish(curve, final)
            if columns is not None:
                rules.whole.finish(curve, final, columns)
        return rules

    def _columns(self, trial: FrozenTrial) -> Sequence[float] | None:
        """What is known of a trial without training; None where it lies outside the space."""
        if self.scheme is not None:
            return self.scheme(trial)
        if self.space is None:
            return ()
        try:
            columns = sample_features(self.space, sample_of(trial, self.space))
        except SpaceError as err:
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"a trial must lie in the space of its pruner to be pruned by it, but {err} "
                    "Such trials are pruned by their reports alone.",
                    stacklevel=2,
                )
            return None
        values: Sequence[float] = columns.tolist()
        return values


class _Rules(NamedTuple):
    """The rules of one study.

    Attributes:
        whole: Knows reports and schemes, of the trials that have one.
        alone: Knows the reports of all trials.
        known: Numbers of the trials that they learned from.
    """

    whole: EarlyStopping
    alone: EarlyStopping
    known: set[int]


def _reports(trial: FrozenTrial) -> list[float]:
    return [value for _, value in sorted(trial.intermediate_values.items())]


def _finite(values: Sequence[float]) -> bool:
    return bool(np.isfinite(np.asarray(values, dtype=np.float64)).all())
