"""A search in step with a study: what it is told of trials, what it asks, and claims on it."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nni_aiop.engines._optuna_learner import SpaceLearner
from nni_aiop.engines._optuna_parameters import Parameter, parameters_of
from nni_aiop.engines._results import settled
from nni_aiop.errors import InfeasibleError
from nni_aiop.search import Objective, Search
from nni_aiop.spaces import CodeSpace, Sample, meets_limits

__all__ = ["METRICS", "Proposal", "Session", "objectives_of", "repeated", "trials_of"]

#: User attribute of a trial under which an objective may leave further metrics for the search.
METRICS = "metrics"


_CLAIM = "nni_aiop:claim"


_DRAWN = 100  # random completions of a partly fixed trial that are looked at together


_PATIENCE = 10  # such draws before it may repeat an architecture, or exceed a limit


def trials_of(study: Study) -> list[FrozenTrial]:
    return study._storage.get_all_trials(study._study_id, deepcopy=False)


def objectives_of(study: Study) -> tuple[Objective, ...]:
    """The study's objectives: one is `default`, several have its metric names or numbers."""
    directions = study.directions
    names = ["default"]
    if len(directions) > 1:
        names = study.metric_names or [f"objective_{i}" for i in range(len(directions))]
    return tuple(
        Objective(name, "maximize" if d == StudyDirection.MAXIMIZE else "minimize")
        for name, d in zip(names, directions, strict=True)
    )


@dataclass(frozen=True)
class Proposal:
    sample: Sample
    parameters: Mapping[str, Parameter]


class Session:
    """A search in step with a study."""

    def __init__(
        self, study: Study, space: CodeSpace, search: Search, learner: SpaceLearner | None
    ) -> None:
        self._study = (study._storage, study._study_id)
        self.space = space
        self.search = search
        self.parameters = parameters_of(space)
        self._objectives = getattr(search, "objectives", None) or objectives_of(study)
        self._learner = learner
        self._learnt: set[int] = set()
        self._told: set[int] = set()
        self._keys: dict[int, str | None] = {}  # of finished trials
        self._passed: dict[str, Sample] = {}  # asked, but taken by another worker at that time

    def is_of(self, study: Study) -> bool:
        """Whether it is in step with this study and not with another one."""
        storage, study_id = self._study
        return storage is study._storage and study_id == study._study_id

    # --- telling ---

    def outgrown_by(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether a trial has completed that shows another space."""
        if self._learner is None:
            return False
        grown = False
        for trial in trials:
            if trial.state == TrialState.COMPLETE and trial.number not in self._learnt:
                self._learnt.add(trial.number)
                grown |= self._learner.add(trial)
        return grown

    def replay(self, trials: Sequence[FrozenTrial], since: float) -> bool:
        """Ask and tell as the trials say, those numbered below `since` without asking.

        False where asking gives another proposal than it gave, as it does after a parallel run.
        """
        again = repeated(trials)
        for trial in trials:
            if trial.state == TrialState.COMPLETE:
                self._learnt.add(trial.number)
            claim = trial.system_attrs.get(_CLAIM)
            # A trial that is run again carries the claim of the one that it repeats.
            if trial.number >= since and claim and claim["trial"] == trial.number:
                asked = self.search.ask(1)
                if not asked or self.space.key(asked[0]) != claim["asked"]:
                    return False
            self._tell(trial, again)
        return True

    def tell(self, trials: Sequence[FrozenTrial]) -> None:
        """Tell what has finished since, in the order of the trials' numbers."""
        again = repeated(trials)
        for trial in trials:
            self._tell(trial, again)

    def _tell(self, trial: FrozenTrial, again: set[int]) -> None:
        if trial.number in self._told or not trial.state.is_finished():
            return
        sample = None if trial.number in again else self._sample_of(trial)
        if sample is not None:
            self._passed.pop(self.space.key(sample), None)
            if self.space.violation(sample) is None:  # an enqueued trial may break a constraint
                try:
                    self.search.tell(sample, settled(self._metrics_of(trial)))
                except ValueError as err:  # raised here it would end every later study, too
                    warnings.warn(f"trial {trial.number} counts as failed: {err}", stacklevel=2)
                    self.search.tell(sample, None)
        self._told.add(trial.number)

    def _metrics_of(self, trial: FrozenTrial) -> dict[str, float] | None:
        """What the search learns from a trial; None for a failed, pruned or infeasible one."""
        if trial.state != TrialState.COMPLETE or any(v > 0 for v in trial.constraints.values()):
            return None
        more = trial.user_attrs.get(METRICS)
        metrics = dict(more) if isinstance(more, dict) else {}
        names = [o.metric for o in self._objectives]
        return {**metrics, **dict(zip(names, trial.values, strict=True))}

    def _facts(self, trial: FrozenTrial) -> Sample:
        """The values that the trial has already, suggested or enqueued.

        Raises:
            LookupError: One of them is not in the space.
        """
        facts: Sample = {}
        fixed = trial.system_attrs.get("fixed_params", {})
        for label, parameter in self.parameters.items():
            if label in trial.params:
                facts[label] = parameter.read(trial.params[label], trial.distributions[label])
            elif label in fixed:
                facts[label] = parameter.read(fixed[label])
        return facts

    def _claimed(self, trial: FrozenTrial) -> Sample:
        claim = trial.system_attrs.get(_CLAIM) or {"params": {}}
        sample: Sample = {}
        for label, param in claim["params"].items():
            if label in self.parameters:
                with contextlib.suppress(LookupError):  # claimed when less of the space was known
                    sample[label] = self.parameters[label].read(param)
        return sample

    def _sample_of(self, trial: FrozenTrial) -> Sample | None:
        """The architecture (its active labels) of a trial; None where unknown or illegal."""
        try:
            sample = {**self._claimed(trial), **self._facts(trial)}
        except LookupError:
            return None
        if not sample:
            return None
        active = self.space.canonical(sample)
        # What a completed trial did not ask for did not matter; others may not have come to ask.
        if trial.state != TrialState.COMPLETE and not active.keys() <= sample.keys():
            return None
        return active

    # --- asking ---

    def _taken(self, trials: Sequence[FrozenTrial], trial: FrozenTrial) -> set[str]:
        """Keys of the architectures of all other trials."""
        keys = (self._key_of(other) for other in trials if other.number != trial.number)
        return {key for key in keys if key is not None}

    def _key_of(self, trial: FrozenTrial) -> str | None:
        if trial.number in self._keys:
            return self._keys[trial.number]
        sample = self._sample_of(trial)
        key = None if sample is None else self.space.key(sample)
        if trial.state.is_finished():
            self._keys[trial.number] = key
        return key

    def propose(
        self, study: Study, trial: FrozenTrial, trials: Sequence[FrozenTrial]
    ) -> Proposal | None:
        """What the trial should evaluate, claimed for it; None where the space is exhausted.

        Raises:
            InfeasibleError: There never was anything to propose.
        """
        try:
            facts = self._facts(trial)
        except LookupError:  # an illegal enqueued value does not become part of a claim
            facts = {}
        if trial.system_attrs.get(_CLAIM):  # run again: go on with what the killed worker claimed
            return self._proposal({**self._claimed(trial), **facts})
        if facts and self.space.canonical(facts).keys() <= facts.keys():
            return self._proposal(facts)
        for attempt in itertools.count(1):
            taken = self._taken(trials, trial)
            chosen = self._next(taken, facts, trial.number)
            if chosen is None:
                if not taken:
                    raise InfeasibleError(
                        f"{self.space.name} must have a sample within the limits "
                        f"{getattr(self.search, 'limits', {})}, but has none."
                    )
                return None
            asked, sample = chosen
            key = self.space.key(sample)
            self._write_claim(study, trial, asked, sample)
            trials = trials_of(study)
            if key in taken or key not in self._taken(trials, trial):
                return self._proposal(sample)
            # Another worker claims the same, and may have seen this claim as well: both step back,
            # and whoever comes first after a while of chance takes it.
            study._storage.set_trial_system_attr(trial._trial_id, _CLAIM, None)
            self._passed[self.space.key(asked)] = asked
            time.sleep(random.uniform(0.0, 0.02 * attempt))
            trials = trials_of(study)
        raise AssertionError("unreachable: the loop is endless")

    def _write_claim(self, study: Study, trial: FrozenTrial, asked: Sample, sample: Sample) -> None:
        claim: Any = {
            "trial": trial.number,
            "asked": self.space.key(asked),
            "params": {label: self.parameters[label].to_param(v) for label, v in sample.items()},
        }
        study._storage.set_trial_system_attr(trial._trial_id, _CLAIM, claim)

    def _proposal(self, sample: Sample) -> Proposal:
        return Proposal(self.space.canonical(sample), self.parameters)

    def _next(self, taken: set[str], facts: Sample, number: int) -> tuple[Sample, Sample] | None:
        """What was asked, and the same with the facts, which nobody has; None: exhausted."""
        fixed = any(self.parameters[label].dimension.size > 1 for label in facts)
        for asked in itertools.chain(list(self._passed.values()), self._ask()):
            sample = self._completed(asked, facts, taken, number) if fixed else asked
            key = self.space.key(asked)
            if fixed or key not in taken:
                self._passed.pop(key, None)
                return asked, self.space.canonical(sample)
            self._passed[key] = asked
        return None

    def _completed(self, asked: Sample, facts: Sample, taken: set[str], number: int) -> Sample:
        """The facts with the rest of what was asked, or else with a random rest.

        It is valid, within the limits and new; where no such rest turns up, the facts are the
        user's order: it may be taken by another trial, else exceed a limit, else be invalid.
        """
        merged = {**asked, **facts}
        limits = getattr(self.search, "limits", {})
        rng = np.random.default_rng(number)
        repeating: Sample = {}
        exceeding: Sample = {}
        drawn = [merged]
        for _ in range(_PATIENCE + 1):
            valid = [s for s in drawn if self.space.violation(s) is None]
            within = meets_limits(self.space, self.space.points(valid), limits) if valid else ()
            for sample, ok in zip(valid, within, strict=True):
                if not ok:
                    exceeding = exceeding or sample
                elif self.space.key(sample) in taken:
                    repeating = repeating or sample
                else:
                    return sample
            with contextlib.suppress(InfeasibleError):  # nothing valid is found by chance
                drawn = [{**s, **facts} for s in self.space.sample(_DRAWN, rng)]
        return repeating or exceeding or merged

    def _ask(self) -> Iterator[Sample]:
        while asked := self.search.ask(1):
            yield asked[0]


def repeated(trials: Sequence[FrozenTrial]) -> set[int]:
    """Numbers of the trials that failed with their worker and that another trial repeats."""
    return {n for t in trials for n in t.system_attrs.get("retry_history", ())}
