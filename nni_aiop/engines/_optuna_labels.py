"""Whether an objective asks for what a given space has: else the search would be a random one."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from nni_aiop.engines._optuna_parameters import Parameter, parameters_of
from nni_aiop.engines._ordered import is_number
from nni_aiop.errors import SpaceError, did_you_mean
from nni_aiop.spaces import CodeSpace, Continuous, Sample

__all__ = ["LabelCheck"]

_NEVER = 10  # trials that might have asked for a label, before one never asked for is told


_LOOKED = 1_000  # values of a dimension that are looked for in a range


class LabelCheck:
    """Tells once of each label that the objective and the space do not share.

    Args:
        space: What was given.
        trials: Trials of before, which are not looked at: their objective may have been another.
    """

    def __init__(self, space: CodeSpace, trials: Iterable[FrozenTrial]) -> None:
        self.space = space
        self._parameters = parameters_of(space)
        self._looked = {t.number for t in trials if t.state.is_finished()}
        self._asked: set[str] = set()
        self._lacking: Counter[str] = Counter()
        self._told: set[str] = set()

    def look(self, trials: Sequence[FrozenTrial], claims: str) -> None:
        """Look at what has completed since.

        Args:
            trials: All trials of the study.
            claims: The system attribute of a trial that says what was proposed to it.

        Raises:
            SpaceError: A trial shares no label with the space, or no value of a label.
        """
        for trial in trials:
            if trial.state != TrialState.COMPLETE or trial.number in self._looked:
                continue
            self._looked.add(trial.number)
            claim = trial.system_attrs.get(claims)
            if claim and trial.params:
                self._look(trial)

    def _look(self, trial: FrozenTrial) -> None:
        known = self._parameters.keys()
        unknown = [label for label in trial.params if label not in known]
        if known.isdisjoint(trial.params):
            raise SpaceError(
                f"the objective must ask for labels of {self.space.name!r}, "
                f"but trial {trial.number} asked for {self._named(unknown)}; "
                f"the space has {', '.join(map(repr, known))}."
            )
        self._asked |= trial.params.keys()
        lacking = [label for label in self._expected(trial) if label not in self._asked]
        self._lacking.update(lacking)
        never = [label for label in lacking if self._lacking[label] >= _NEVER]
        news = [label for label in (*unknown, *never) if label not in self._told]
        if news:
            told = lacking if set(unknown) & set(news) else never
            self._told |= {*unknown, *told}
            parts = [f"{self._named(unknown)} not known to it"] if unknown else []
            parts += [f"{', '.join(map(repr, told))} never asked for so far"] if told else []
            warnings.warn(
                f"labels of {self.space.name!r} and of the objective should be the same, but "
                f"{' and '.join(parts)} (trial {trial.number}): what is not known is drawn at "
                "random, and what is not asked for is left out.",
                stacklevel=2,
            )
        for label, param in trial.params.items():
            if label in known and label not in self._told:
                self._look_at_value(trial, label, param)

    def _expected(self, trial: FrozenTrial) -> Iterable[str]:
        """Labels that the space says the trial should have."""
        sample: Sample = {}
        for label, param in trial.params.items():
            if label in self._parameters:
                with contextlib.suppress(LookupError):
                    sample[label] = self._parameters[label].read(param, trial.distributions[label])
        return self.space.canonical(sample)

    def _look_at_value(self, trial: FrozenTrial, label: str, param: object) -> None:
        parameter, distribution = self._parameters[label], trial.distributions[label]
        if label in trial.system_attrs.get("fixed_params", {}):
            return
        left_out = [c for c in _choices(distribution) if not _reads(parameter, c, distribution)]
        if _reads(parameter, param, distribution) and not left_out:
            return
        self._told.add(label)
        of = f"{label!r} of {self.space.name!r} has {parameter.dimension.describe()}"
        if not _shared(parameter, distribution):
            raise SpaceError(
                f"the objective must ask for values of the space, but {of}, and trial "
                f"{trial.number} asked for {label!r} from {distribution}."
            )
        warnings.warn(
            f"the objective should ask for values of the space, but {of}, and trial "
            f"{trial.number} asked for it from {distribution}: trials with other values are not "
            "learned from, and none are proposed.",
            stacklevel=2,
        )

    def _named(self, unknown: Iterable[str]) -> str:
        """Labels, each with the one that may have been meant."""
        return ", ".join(f"{label!r}{did_you_mean(label, self._parameters)}" for label in unknown)


def _choices(distribution: BaseDistribution) -> Sequence[object]:
    return distribution.choices if isinstance(distribution, CategoricalDistribution) else ()


def _reads(parameter: Parameter, param: object, distribution: BaseDistribution) -> bool:
    try:
        parameter.read(param, distribution)
    except LookupError:
        return False
    return True


def _shared(parameter: Parameter, distribution: BaseDistribution) -> bool:
    """Whether the objective's distribution has any value of the dimension."""
    choices = _choices(distribution)
    if choices:
        return any(_reads(parameter, choice, distribution) for choice in choices)
    dimension = parameter.dimension
    if isinstance(dimension, Continuous):
        low, high = getattr(distribution, "low", 0.0), getattr(distribution, "high", 0.0)
        return bool(low <= dimension.high and dimension.low <= high)
    values = list(getattr(dimension, "values", ()))[:_LOOKED]
    for value in values:
        if is_number(value) and _reads(
            parameter, parameter.write(value, distribution), distribution
        ):
            return True
    return False
