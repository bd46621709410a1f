"""Any search as an Optuna sampler.

The storage is the truth. A sampler keeps no result of its own: whenever a trial needs a proposal,
the search is told, in the order of the trials' numbers, what the study has finished since; and a
sampler that meets a study with trials first repeats their asking and telling, so that it goes on as
if it had never stopped.

Every proposal is claimed before it is evaluated. A worker writes the claim onto its trial and then
reads the other trials' claims; where another one claims the same architecture, the worker steps
back and claims something else. A storage that shows finished writes to all later reads (every
storage of Optuna does) thus never has two workers at the same architecture.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nni_aiop.engines._optuna_learner import SpaceLearner
from nni_aiop.engines.optuna_space import Parameter, nearest, parameters_of
from nni_aiop.errors import InfeasibleError
from nni_aiop.search import Objective, Search
from nni_aiop.search._limits import meets_limits
from nni_aiop.spaces import CodeSpace, Sample

__all__ = ["METRICS", "SearchFactory", "SearchSampler", "repeated"]

SearchFactory = Callable[..., Search]

#: User attribute of a trial under which an objective may leave further metrics for the search.
METRICS = "metrics"

_CLAIM = "nni_aiop:claim"
_DRAWN = 100  # random completions of a partly fixed trial that are looked at together
_PATIENCE = 10  # such draws before it may repeat an architecture, or exceed a limit
_SHUFFLED = 1_024  # choices up to this number are shuffled, more are drawn


class SearchSampler(BaseSampler):
    """A sampler that proposes what a search asks for.

    It suggests the labels of the search's space, whatever distributions the objective names them
    with; labels that the space does not have are drawn at random. Trials that failed or were
    pruned, and those that broke a constraint (`Trial.set_constraint`), count as failed: they are
    neither learnt from nor proposed again. Enqueued values, and those of a trial that is run again,
    are passed through. When a given space is exhausted the study is stopped.

    Run in series, a study with a seed is exactly reproducible, also when it is interrupted and goes
    on with a new sampler; run in parallel it never repeats an architecture, but its order depends
    on timing.

    Args:
        search: A search, or what makes one: a class such as `RandomSearch`, or any function of
            `(space, *, objectives, seed)`.
        space: Where a made search searches: a CodeSpace or an NNI ModelSpace. None learns the space
            from completed trials: the first trials are random, and the search is made anew when a
            label, a range or a condition turns up that was not known.
        seed: Of a made search, and of values outside the space; None for a fresh one.

    Raises:
        ValueError: A search was given together with a space, which it has itself.
    """

    def __init__(
        self, search: Search | SearchFactory, space: Any = None, *, seed: int | None = None
    ) -> None:
        self._given: Any = None
        self._factory: Any = None
        if isinstance(search, type) or not hasattr(search, "ask"):
            self._factory = search
            self._space = _as_code_space(space)
        elif space is None:
            self._given = search
            self._space = self._given.space
            seed = getattr(search, "seed", seed)
        else:
            raise ValueError(f"a search brings its own space, but got also {space!r}.")
        self._seed = random.SystemRandom().getrandbits(31) if seed is None else seed
        self._beginning: dict[str, Any] | None = None
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._session: _Session | None = None
        self._proposals: dict[tuple[BaseStorage, int], _Proposal | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Locks do not travel, and the books are written again from the study.
        left = ("_lock", "_session", "_proposals")
        return {k: v for k, v in self.__dict__.items() if k not in left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    @property
    def search(self) -> Search | None:
        """The search as it stands; None where it is yet to be made."""
        given: Search | None = self._given
        return given if self._session is None else self._session.search

    def catch_up(self, study: Study) -> Search | None:
        """The search, told everything that the study has finished; None while its space is unknown.

        Raises:
            ValueError: The study's directions are not those of the search's objectives.
        """
        study = _whole(study)
        with self._lock:
            session = self._in_step(study, _trials(study))
            return None if session is None else session.search

    # --- what Optuna calls ---

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        # Optuna drops relative values that the objective does not ask for and refuses those of
        # another distribution; suggested one by one, each is fitted to what the objective names.
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A value for one parameter.

        Raises:
            optuna.TrialPruned: The given space is exhausted.
            InfeasibleError: No architecture meets the search's limits.
            ValueError: The study's directions are not those of the search's objectives.
        """
        proposal = self._proposal(_whole(study), trial)
        if proposal is not None and param_name in proposal.sample:
            with contextlib.suppress(LookupError):
                return proposal.parameters[param_name].write(
                    proposal.sample[param_name], param_distribution
                )
        return draw(self._seed, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        # The storage tells the search before the next proposal. An exception here would be stored
        # as a completed trial and stop the study, so nothing is done that could raise one.
        self._proposals.pop(_identity(study, trial), None)

    # --- proposals ---

    def _proposal(self, study: Study, trial: FrozenTrial) -> _Proposal | None:
        """What the trial should evaluate, claimed for it; None where no space is known yet."""
        identity = _identity(study, trial)
        with self._lock:
            if identity not in self._proposals:
                trials = _trials(study)
                session = self._in_step(study, trials)
                proposal = None if session is None else session.propose(study, trial, trials)
                if session is not None and proposal is None and self._space is not None:
                    with contextlib.suppress(RuntimeError):  # outside of `study.optimize`
                        study.stop()
                    raise optuna.TrialPruned(f"every architecture of {self._space} is taken.")
                self._proposals[identity] = proposal
            return self._proposals[identity]

    def _in_step(self, study: Study, trials: list[FrozenTrial]) -> _Session | None:
        """The session, told everything that is finished."""
        session = self._session
        if session is None or not session.is_of(study):
            self._session = self._begin(study, trials, repeat=True)
        elif session.outgrown_by(trials):
            self._session = self._begin(study, trials, repeat=False)
        else:
            session.tell(trials)
        return self._session

    def _begin(self, study: Study, trials: list[FrozenTrial], *, repeat: bool) -> _Session | None:
        """A new session; it repeats the study's asking where that gives the same proposals."""
        learner, since = None, 0
        space = self._space
        if space is None:
            learner = SpaceLearner()
            for trial in trials:
                if trial.state == TrialState.COMPLETE and learner.add(trial):
                    since = trial.number + 1
            space = learner.space
            if space is None:
                return None
        for first in (since, math.inf) if repeat else (math.inf,):
            session = _Session(study, space, self._made(study, space), learner)
            if session.replay(trials, first):
                return session
        raise AssertionError("unreachable: a replay that asks nothing never fails")

    def _made(self, study: Study, space: CodeSpace) -> Search:
        """A search at its beginning, whose objectives are the study's."""
        if self._given is None:
            made: Search = self._factory(space, objectives=_objectives(study), seed=self._seed)
            return made
        given: Search = self._given
        if self._beginning is None:
            self._beginning = given.state_dict()
        else:
            given.load_state_dict(self._beginning)
        _check_objectives(given, study)
        return given


def _as_code_space(space: Any) -> CodeSpace | None:
    if space is None or isinstance(space, CodeSpace):
        return space
    from nni_aiop.engines.nni_space import code_space_from_nni

    return code_space_from_nni(space)


def _whole(study: Study) -> Study:
    """The study itself, of which Hyperband shows samplers only one bracket."""
    whole: Study = getattr(study, "_study", study)
    return whole


def _identity(study: Study, trial: FrozenTrial) -> tuple[BaseStorage, int]:
    """Of a trial among those of all studies in this process."""
    return study._storage, trial._trial_id


def _trials(study: Study) -> list[FrozenTrial]:
    return study._storage.get_all_trials(study._study_id, deepcopy=False)


def _objectives(study: Study) -> tuple[Objective, ...]:
    """The study's objectives: one is `default`, several have its metric names or numbers."""
    directions = study.directions
    names = ["default"]
    if len(directions) > 1:
        names = study.metric_names or [f"objective_{i}" for i in range(len(directions))]
    return tuple(
        Objective(name, "maximize" if d == StudyDirection.MAXIMIZE else "minimize")
        for name, d in zip(names, directions, strict=True)
    )


def _check_objectives(search: Search, study: Study) -> None:
    own = getattr(search, "objectives", None)
    given = [o.direction for o in _objectives(study)]
    if own is not None and [o.direction for o in own] != given:
        raise ValueError(
            "the study's directions must be those of the search's objectives, "
            f"{[o.direction for o in own]}, but are {given}."
        )


@dataclass(frozen=True)
class _Proposal:
    sample: Sample
    parameters: Mapping[str, Parameter]


class _Session:
    """A search in step with a study."""

    def __init__(
        self, study: Study, space: CodeSpace, search: Search, learner: SpaceLearner | None
    ) -> None:
        self._study = (study._storage, study._study_id)
        self.space = space
        self.search = search
        self.parameters = parameters_of(space)
        self._objectives = getattr(search, "objectives", None) or _objectives(study)
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
                self.search.tell(sample, self._metrics_of(trial))
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
    ) -> _Proposal | None:
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
            trials = _trials(study)
            if key in taken or key not in self._taken(trials, trial):
                return self._proposal(sample)
            # Another worker claims the same, and may have seen this claim as well: both step back,
            # and whoever comes first after a while of chance takes it.
            study._storage.set_trial_system_attr(trial._trial_id, _CLAIM, None)
            self._passed[self.space.key(asked)] = asked
            time.sleep(random.uniform(0.0, 0.02 * attempt))
            trials = _trials(study)
        raise AssertionError("unreachable: the loop is endless")

    def _write_claim(self, study: Study, trial: FrozenTrial, asked: Sample, sample: Sample) -> None:
        claim: Any = {
            "trial": trial.number,
            "asked": self.space.key(asked),
            "params": {label: self.parameters[label].to_param(v) for label, v in sample.items()},
        }
        study._storage.set_trial_system_attr(trial._trial_id, _CLAIM, claim)

    def _proposal(self, sample: Sample) -> _Proposal:
        return _Proposal(self.space.canonical(sample), self.parameters)

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


def draw(seed: int, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
    """A random value, the same for the same seed, trial number and values suggested before.

    The trial's number is read as digits, one for each parameter, in a base of as many digits as the
    parameter has choices; what was suggested before decides what a digit stands for. So any worker
    can draw without looking at the others, and the first trials of a study differ from each other.
    """
    number = trial.number
    for suggested in trial.distributions.values():
        number //= _base(suggested) or 1
    path = repr((seed, name, list(trial.params.items())))
    rng = np.random.default_rng(list(hashlib.sha256(path.encode()).digest()))
    base = _base(distribution)
    if base is None:
        rng = np.random.default_rng([int(rng.integers(2**32)), number])
        return _quantile(distribution, float(rng.random()))
    return _choice(distribution, int(rng.permutation(base)[number % base]))


def _base(distribution: BaseDistribution) -> int | None:
    """How many equally likely values there are; None where there are too many to shuffle."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    if distribution.log or distribution.step is None:
        return None
    n = round((distribution.high - distribution.low) / distribution.step) + 1
    return n if n <= _SHUFFLED else None


def _choice(distribution: BaseDistribution, index: int) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[index]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    return min(distribution.low + index * (distribution.step or 1), distribution.high)


def _quantile(distribution: BaseDistribution, u: float) -> float | int:
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    # Half a step beyond either end, so that the ends are as likely as the rest.
    half = (distribution.step or 0) / 2
    low, high = distribution.low - half, distribution.high + half
    if distribution.log:
        number = math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
    else:
        number = low + u * (high - low)
    return nearest(distribution, number)
