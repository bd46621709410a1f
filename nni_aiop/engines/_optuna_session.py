"""A search in step with a study: what it is told of trials, what it asks, and claims on it."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nni_aiop.engines._optuna_fitting import Fitting, Proposal, Taken
from nni_aiop.engines._optuna_learner import SpaceLearner
from nni_aiop.engines._optuna_outcomes import Outcomes, mark
from nni_aiop.engines._optuna_parameters import parameters_of
from nni_aiop.engines._optuna_rounds import CLAIM, Rounds, claim_of, repeated, trials_of
from nni_aiop.engines._optuna_shown import constraints_of
from nni_aiop.engines._optuna_stale import take_over
from nni_aiop.engines._results import settled
from nni_aiop.errors import InfeasibleError, SpaceError
from nni_aiop.search import Objective, Search
from nni_aiop.search._metrics import CONSTRAINT
from nni_aiop.spaces import CodeSpace, Sample

__all__ = ["CLAIM", "METRICS", "Proposal", "Session", "objectives_of", "repeated", "trials_of"]

#: User attribute of a trial under which an objective may leave further metrics for the search.
METRICS = "metrics"


_REPEATS = 3  # proposals in a row that are known already, before a neighbour takes their place


_TRIED = 3  # such repeats in a row, before there is thought to be nothing else


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


class Session:
    """A search in step with a study."""

    def __init__(
        self,
        study: Study,
        space: CodeSpace,
        search: Search,
        learner: SpaceLearner | None,
        stale_after: float | None = None,
    ) -> None:
        self._study = (study._storage, study._study_id)
        self.space = space
        self.search = search
        self.parameters = parameters_of(space)
        self._objectives = getattr(search, "objectives", None) or objectives_of(study)
        self._learner = learner
        self._learnt: set[int] = set()
        self._told: set[int] = set()
        self._since = 0 if learner is None else learner.since
        self._outcomes = Outcomes(space, self.parameters, self._since)
        self._fitting = Fitting(space, search, self._outcomes)
        self._metrics: dict[int, dict[str, float] | None] = {}  # of completed trials
        self._ended: dict[int, Taken | None] = {}  # outcomes of finished trials
        self._repeating: set[int] = set()  # completed trials that had what an earlier one had
        self._passed: dict[str, Sample] = {}  # asked, but taken by another worker at that time
        self._beside: list[tuple[Any, int | None]] = []  # asked meanwhile, with whose result it has
        self._expected: dict[int, str] = {}  # by trial the key that the search expects of it
        self._rounds = Rounds.of(search, stale_after)
        self._stale_after = stale_after

    def is_of(self, study: Study) -> bool:
        """Whether it is in step with this study and not with another one."""
        storage, study_id = self._study
        return storage is study._storage and study_id == study._study_id

    # --- joining ---

    def join(self, trials: Sequence[FrozenTrial], since: int) -> bool:
        """Be told what the trials say, and go on where the latest proposal left the search.

        False where asking would have to be repeated for that (see `replay`), and nothing was done.

        Args:
            trials: All trials.
            since: Number of the first trial since the space is the present one.
        """
        if self._rounds is None or not self._rounds.knows(trials):
            return False
        again = repeated(trials)
        for trial in trials:
            if trial.state == TrialState.COMPLETE:
                self._learnt.add(trial.number)
            if trial.number >= since:
                self._recall(self._rounds.beside(trial))
                claimed = self._claimed(trial)
                if claimed and self._rounds.asked(trial) == self.space.key(claimed):
                    self._recall([(self.space.to_json(claimed), None)])
            self._tell(trial, again)
        self._rounds.begin(trials, since)
        return True

    def _recall(self, asked: Iterable[tuple[Any, int | None]]) -> None:
        """What was asked for beside a proposal: each point is told the result of the trial that it
        was found to repeat; of one that nobody evaluates no result will come."""
        for point, number in asked:
            with contextlib.suppress(SpaceError):
                sample = self.space.from_json(point)
                if number is None:
                    self.search.expect(sample)  # type: ignore[attr-defined]
                elif number in self._metrics:
                    self.search.tell(sample, self._metrics[number])

    def replay(self, trials: Sequence[FrozenTrial], since: float) -> bool:
        """Ask and tell as the trials say, those numbered below `since` without asking.

        Only for searches that have no `progress`. False where asking gives another proposal than it
        gave, as it does after a parallel run.
        """
        again = repeated(trials)
        for trial in trials:
            if trial.state == TrialState.COMPLETE:
                self._learnt.add(trial.number)
            claim = claim_of(trial)
            # A trial that is run again carries the claim of the one that it repeats.
            if trial.number >= since and claim and claim["trial"] == trial.number:
                first = next(self._ask(), None) if claim.get("fixed") else self._fresh(set())
                if (None if first is None else self.space.key(first)) != claim["asked"]:
                    return False
            self._tell(trial, again)
        return True

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

    def tell(self, trials: Sequence[FrozenTrial]) -> None:
        """Tell what has finished since, in the order of the trials' numbers."""
        again = repeated(trials)
        for trial in trials:
            self._tell(trial, again)

    def _tell(self, trial: FrozenTrial, again: set[int]) -> None:
        if trial.number in self._told or not trial.state.is_finished():
            return
        sample = None if trial.number in again else self._sample_of(trial)
        metrics = self._metrics_of(trial)
        if trial.state == TrialState.COMPLETE:
            self._metrics[trial.number] = metrics
            if self._outcomes.learn(trial, self._claimed(trial), sample or {}):
                self._repeating.add(trial.number)
        if sample is not None:
            self._passed.pop(self.space.key(sample), None)
            if self.space.violation(sample) is None:  # an enqueued trial may break a constraint
                try:
                    self.search.tell(sample, metrics)
                except ValueError as err:  # raised here it would end every later study, too
                    warnings.warn(f"trial {trial.number} counts as failed: {err}", stacklevel=2)
                    self._metrics[trial.number] = None
                    self.search.tell(sample, None)
            if trial.number >= self._since:
                self._fitting.networks |= self._fitting.networks_of([sample])
        self._told.add(trial.number)
        if self._rounds is not None:  # what it was thought to evaluate may be another sample
            for key in (self._rounds.asked(trial), self._expected.pop(trial.number, None)):
                if key is not None:
                    self.search.dismiss(key)  # type: ignore[attr-defined]

    def _metrics_of(self, trial: FrozenTrial) -> dict[str, float] | None:
        """What the search learns from a trial; None for a failed or pruned one.

        A constraint is a metric `constraint:NAME`, broken above 0. One that is NaN or infinite says
        no more than that it is broken, so that the trial counts as failed.
        """
        if trial.state != TrialState.COMPLETE:
            return None
        constraints = {}
        for key, value in constraints_of(trial).items():
            if not value < math.inf:
                return None
            constraints[f"{CONSTRAINT}{key}"] = 0.0 if value == -math.inf else value
        more = trial.user_attrs.get(METRICS)
        metrics = dict(more) if isinstance(more, dict) else {}
        names = [o.metric for o in self._objectives]
        metrics |= dict(zip(names, trial.values, strict=True))
        return settled({**metrics, **constraints})

    def _claimed(self, trial: FrozenTrial) -> Sample:
        sample: Sample = {}
        for label, param in (claim_of(trial) or {"params": {}})["params"].items():
            if label in self.parameters:
                with contextlib.suppress(LookupError):  # claimed when less of the space was known
                    sample[label] = self.parameters[label].read(param)
        return sample

    def _sample_of(self, trial: FrozenTrial) -> Sample | None:
        """The architecture (its active labels) of a trial; None where unknown or illegal."""
        try:
            sample = {**self._claimed(trial), **self._fitting.facts(trial)}
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

    def _taken(self, trials: Sequence[FrozenTrial], trial: FrozenTrial) -> set[Taken]:
        """Outcomes of all other trials but the completed ones that were told."""
        out = set()
        for other in trials:
            told = other.state == TrialState.COMPLETE and other.number in self._told
            if other.number != trial.number and not told:
                outcome = self._outcome_of(other)
                if outcome is not None:
                    out.add(outcome)
        return out

    def _expect(self, trials: Sequence[FrozenTrial], trial: FrozenTrial) -> None:
        """Let the search know what other workers are at."""
        for other in trials:
            if other.state != TrialState.RUNNING or other.number == trial.number:
                continue
            if other.number in self._expected or not claim_of(other):
                continue
            sample = self._sample_of(other)
            if sample is not None and self.space.violation(sample) is None:
                self.search.expect(sample)  # type: ignore[attr-defined]
                self._expected[other.number] = self.space.key(sample)

    def _outcome_of(self, trial: FrozenTrial) -> Taken | None:
        if trial.number in self._ended:
            return self._ended[trial.number]
        self._outcomes.see(trial)
        sample = self._sample_of(trial)
        outcome = None
        if sample is not None:
            outcome = frozenset(self._outcomes.of(sample, trial.params).items())
        if trial.state.is_finished():
            self._ended[trial.number] = outcome
        return outcome

    def propose(
        self,
        study: Study,
        trial: FrozenTrial,
        trials: Sequence[FrozenTrial],
        fixed: Mapping[str, Any] | None = None,
    ) -> Proposal | None:
        """What the trial should evaluate, claimed for it; None where the space is exhausted.

        Args:
            study: The study.
            trial: The trial.
            trials: All trials.
            fixed: Parameters that another sampler fixes; by default what the latest trials show.

        Raises:
            InfeasibleError: There never was anything to propose.
        """
        self._beside.clear()
        if fixed is not None:
            known = {label: fixed[label] for label in fixed if label in self.parameters}
            self._outcomes.elsewhere = known
        facts = self._fitting.facts(trial, legal=True)
        if claim_of(trial):  # run again: go on with what the killed worker claimed
            again = self._proposal({**self._claimed(trial), **facts}, trial)
            if not self._is_anothers(again, trial, trials):
                return again
        if facts and self.space.canonical(facts).keys() <= facts.keys():
            return self._proposal(facts, trial)
        if self._stale_after is not None and not facts:
            dead = take_over(study, trial, trials, self._stale_after)
            if dead is not None:  # with its claim
                return self._proposal(self._claimed(dead), trial)
        for attempt in itertools.count(1):
            if self._rounds is not None:

                def look(trials: Sequence[FrozenTrial]) -> None:
                    self.tell(trials)
                    self._expect(trials, trial)

                trials = self._rounds.enter(study, trial, list(trials), look)
            taken = self._taken(trials, trial)
            found = self._next(taken, facts, trial)
            if found is None:
                if not (taken or self._metrics):
                    raise InfeasibleError(
                        f"{self.space.name} must have a sample within the limits "
                        f"{getattr(self.search, 'limits', {})}, but has none."
                    )
                return None
            proposal = found
            self._write_claim(study, trial, proposal)
            trials = trials_of(study)
            mine = frozenset(proposal.outcome.items())
            if mine in taken or mine not in self._taken(trials, trial):
                return proposal
            # Another worker claims the same, and may have seen this claim as well: both step back,
            # and whoever comes first after a while of chance takes it.
            study._storage.set_trial_system_attr(trial._trial_id, CLAIM, None)
            if self._rounds is not None:
                self._rounds.retract(trial)
            if proposal.asked is not None:
                self._passed[self.space.key(proposal.asked)] = proposal.asked
            time.sleep(random.uniform(0.0, 0.02 * attempt))
            trials = trials_of(study)
        raise AssertionError("unreachable: the loop is endless")

    def _is_anothers(
        self, proposal: Proposal, trial: FrozenTrial, trials: Sequence[FrozenTrial]
    ) -> bool:
        """Whether the worker that died was about to step back from what it claimed.

        It had claimed what another one had, too, and nothing was suggested yet.
        """
        if trial.params:
            return False
        if self._outcomes.repeated(proposal.outcome) is not None:
            return True
        own = {trial.number, *trial.system_attrs.get("retry_history", ())}
        mine = frozenset(proposal.outcome.items())
        for other in trials:
            # Of two that are run again the first one keeps it.
            earlier = bool(other.params) or other.number < trial.number
            if other.number not in own and earlier and self._outcome_of(other) == mine:
                return True
        return False

    def _write_claim(self, study: Study, trial: FrozenTrial, proposal: Proposal) -> None:
        sample, asked = proposal.sample, proposal.asked
        claim: Any = {
            "trial": trial.number,
            "asked": None if asked is None else self.space.key(asked),
            "fixed": proposal.fixed,
            "params": {label: self.parameters[label].to_param(v) for label, v in sample.items()},
        }
        if self._rounds is not None:
            other = asked is not None and claim["asked"] != self.space.key(sample)
            more = [(self.space.to_json(asked or {}), None)] if other else []
            claim |= self._rounds.left(trial, self._beside, more)
        study._storage.set_trial_system_attr(trial._trial_id, CLAIM, claim)

    def _proposal(
        self, sample: Sample, trial: FrozenTrial, asked: Sample | None = None, fixed: bool = False
    ) -> Proposal:
        sample = self.space.canonical(sample)
        return Proposal(sample, self._outcomes.of(sample, trial.params), asked, fixed)

    def _next(self, taken: set[Taken], facts: Sample, trial: FrozenTrial) -> Proposal | None:
        """What was asked, with the facts, which nobody has; None: exhausted."""
        given = (*facts, *self._outcomes.elsewhere)
        fixed = any(self.parameters[label].dimension.size > 1 for label in given)
        if fixed:
            asked = next(itertools.chain(list(self._passed.values()), self._ask()), None)
            sample = self._fitting.completed(asked, facts, taken, trial)
        else:
            asked = self._fresh(taken)
            sample = asked
            if asked is None or not self._fitting.is_new(self._outcomes.of(asked), taken):
                sample = self._fitting.completed(asked, facts, taken, trial, new=True)
            if sample is None:
                sample = self._untold(asked)
        if sample is None:
            return None
        if asked is not None:
            self._passed.pop(self.space.key(asked), None)
        return self._proposal(sample, trial, asked, fixed)

    def _untold(self, asked: Sample | None) -> Sample | None:
        """What should repeat another trial: perhaps the objective allows more than it did; None
        where it hardly does, or where nothing was left out."""
        latest = sorted(self._metrics)[-_TRIED:]
        if len(latest) == _TRIED and self._repeating.issuperset(latest):
            return None
        base = None if self._learner is None else self._learner.base
        if base is None or base is self.space:
            return asked
        (sample,) = base.sample(1, np.random.default_rng(len(self._told)))
        return sample

    def _fresh(self, taken: set[Taken]) -> Sample | None:
        """What is asked next that nobody has, or a repeat after many; None where there is none."""
        repeats = 0
        for asked in itertools.chain(list(self._passed.values()), self._ask()):
            key = self.space.key(asked)
            outcome = self._outcomes.of(asked)
            number = self._outcomes.repeated(outcome)
            if number is None and frozenset(outcome.items()) in taken:
                self._passed[key] = asked
                continue
            repeats += number is not None
            if number is None or repeats > _REPEATS:
                return asked
            self._passed.pop(key, None)
            # To the objective it is what that trial had, so that its result is known already.
            self._beside.append((self.space.to_json(asked), number))
            self.search.tell(asked, self._metrics[number])
        return None

    def _ask(self) -> Iterator[Sample]:
        while asked := self.search.ask(1):
            yield asked[0]

    # --- suggesting ---

    def suggested(
        self,
        study: Study,
        trial: FrozenTrial,
        proposal: Proposal,
        label: str,
        distribution: BaseDistribution,
    ) -> Any:
        """The parameter of a proposal; where the trial has or allows another one than it should,
        the rest is fitted to that.

        Raises:
            LookupError: The space has no such label.
        """
        parameter = self.parameters[label]
        param: Any = None
        if label in proposal.sample:
            with contextlib.suppress(LookupError):
                param = parameter.write(proposal.sample[label], distribution)
        has = {x: mark(p) for x, p in trial.params.items() if x in self.parameters}
        if param is not None:
            has[label] = mark(param)
        if param is not None and has.items() <= proposal.outcome.items():
            return param
        taken = self._taken(trials_of(study), trial)
        outcome = {**proposal.outcome, **has}
        if param is None or not self._fitting.is_new(outcome, taken):
            sample, found = self._fitting.refitted(taken, trial, proposal, label, distribution)
            if found is not None:
                param, proposal.sample = found, sample
        if param is None:
            raise LookupError(label)
        proposal.outcome = {**self._outcomes.of(proposal.sample, trial.params), label: mark(param)}
        with contextlib.suppress(LookupError):
            value = parameter.read(param, distribution)
            proposal.sample = {
                **proposal.sample,
                **self._fitting.facts(trial, legal=True),
                label: value,
            }
            self._write_claim(study, trial, proposal)
        return param
