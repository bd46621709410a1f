"""Any search as an Optuna sampler.

The storage is the truth. A sampler keeps no result of its own: whenever a trial needs a proposal,
the search is told, in the order of the trials' numbers, what the study has finished since; and a
sampler that meets a study with trials takes, with the latest claim, what else the search needs to
go on as if it had never stopped (see `_optuna_rounds`). A round of proposals, which may take a fit,
is made by one worker for all.

Every proposal is claimed before it is evaluated. A worker writes the claim onto its trial and then
reads the other trials' claims; where another one claims the same architecture, the worker steps
back and claims something else. A storage that shows finished writes to all later reads (every
storage of Optuna does) thus never has two workers at the same architecture.
"""

from __future__ import annotations

import contextlib
import math
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, PartialFixedSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nni_aiop.engines._optuna_draws import draw
from nni_aiop.engines._optuna_labels import LabelCheck
from nni_aiop.engines._optuna_learner import SpaceLearner
from nni_aiop.engines._optuna_session import (
    CLAIM,
    Proposal,
    Session,
    objectives_of,
    trials_of,
)
from nni_aiop.engines._optuna_shown import constraints_of, show_constraints
from nni_aiop.search import Search
from nni_aiop.search._options import check_options
from nni_aiop.spaces import CodeSpace, Sample, SampleCost, graph_costs, sample_costs

if TYPE_CHECKING:
    from nni_aiop.graphs import ComputeGraph

__all__ = ["SearchFactory", "SearchSampler"]

SearchFactory = Callable[..., Search]


class SearchSampler(BaseSampler):
    """A sampler that proposes what a search asks for.

    It suggests the labels of the search's space, whatever distributions the objective names them
    with; labels that the space does not have are drawn at random. Trials that failed or were
    pruned are neither learnt from nor proposed again. A constraint (`Trial.set_constraint`) is told
    to the search as the metric `constraint:NAME`, broken above 0. Enqueued values, and those of a
    trial that is run again, are passed through. When a given space is exhausted the study is
    stopped.

    What counts is what a trial really gets: its values are those of the objective's own ranges and
    steps, another sampler may fix some of them, and labels that are not asked for tell no two
    trials apart. The objective may change on the way (labels dropped, renamed, added, ranges that
    become others, conditions): what its latest trials ask for is searched, and what was evaluated
    before the change may be evaluated again.

    Run in series, a study with a seed is exactly reproducible, also when it is interrupted and goes
    on with a new sampler; run in parallel it never repeats an architecture, but its order depends
    on timing.

    Args:
        search: A search, or what makes one: a class such as `RandomSearch`, or any function of
            `(space, *, objectives, seed)`.
        space: Where a made search searches: a CodeSpace or an NNI ModelSpace. None learns the space
            from completed trials: the first trials are random, and the search is made anew when a
            label, a range or a condition turns up that was not known, or is there no more.
        seed: Of a made search, and of values outside the space; None for a fresh one.
        graph: From a sample (the labels and values that the objective gets) to the compute graph of
            its network: the space has then the exact costs `flops` (multiply-adds), `params` and
            `peak_memory`, which `limits` and `cost` of a made search may name. While the space is
            not known, before a trial has completed, nothing keeps a limit.
        costs: Further costs by name: functions of a sample, or each a `SampleCost`.
        stale_after: Seconds after which a running trial of another worker is thought to be dead: it
            is failed, and what it claimed is proposed again. It must be longer than the longest
            proposal and evaluation together, and the clocks of machines must agree. It is for
            storages without heartbeats, such as journals (see `open_storage`); None leaves dead
            trials running.

    Raises:
        SpaceError: A cost is no function.
        ValueError: A search was given together with a space, a graph or costs, which it has itself;
            or `stale_after` is not positive.
        TypeError: There is no search, the space is none, or an option is unknown (of a class, or of
            a `functools.partial` of one).
    """

    def __init__(
        self,
        search: Search | SearchFactory,
        space: Any = None,
        *,
        seed: int | None = None,
        graph: Callable[[Mapping[str, Any]], ComputeGraph] | None = None,
        costs: Mapping[str, SampleCost | Callable[[Sample], Any]] | None = None,
        stale_after: float | None = None,
    ) -> None:
        if stale_after is not None and not stale_after > 0:
            raise ValueError(f"stale_after must be a positive number, but got {stale_after!r}.")
        self._stale_after = stale_after
        # Made once: what was evaluated is known wherever the space is learned anew.
        self._costs = {**({} if graph is None else graph_costs(graph)), **sample_costs(costs or {})}
        self._given: Any = None
        self._factory: Any = None
        if isinstance(search, type) or not hasattr(search, "ask"):
            if not callable(search):
                raise TypeError(
                    f"a search, or what makes one, must be given, but got {search!r:.80}."
                )
            check_options(search, {})
            self._factory = search
            self._space = _as_code_space(space)
            if self._space is not None:
                self._space = self._space.with_known(self._costs)
        elif space is None and not self._costs:
            self._given = search
            self._space = self._given.space
            seed = getattr(search, "seed", seed)
        else:
            more = repr(space) if space is not None else f"the costs {', '.join(self._costs)}"
            raise ValueError(f"a search brings its own space, but got also {more}.")
        self._seed = random.SystemRandom().getrandbits(31) if seed is None else seed
        self._beginning: dict[str, Any] | None = None
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._session: Session | None = None
        self._labels: LabelCheck | None = None
        self._proposals: dict[tuple[BaseStorage, int], tuple[Session, Proposal] | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Locks do not travel, and the books are written again from the study.
        left = ("_lock", "_session", "_labels", "_proposals")
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
            session = self._in_step(study, trials_of(study))
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
            SpaceError: A trial asked for no label, or no value of one, that the given space has.
            InfeasibleError: No architecture meets the search's limits.
            ValueError: The study's directions are not those of the search's objectives.
        """
        study = _whole(study)
        with self._lock:
            proposed = self._proposal(study, trial)
            if proposed is not None:
                session, proposal = proposed
                with contextlib.suppress(LookupError):
                    return session.suggested(study, trial, proposal, param_name, param_distribution)
        return draw(self._seed, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        # The storage tells the search before the next proposal. An exception here would be stored
        # as a completed trial and stop the study, so that none is let out.
        self._proposals.pop(_identity(study, trial), None)
        with contextlib.suppress(Exception):
            show_constraints(study._storage, trial, constraints_of(trial))

    # --- proposals ---

    def _proposal(self, study: Study, trial: FrozenTrial) -> tuple[Session, Proposal] | None:
        """What the trial should evaluate, claimed for it; None where no space is known yet."""
        identity = _identity(study, trial)
        with self._lock:
            if identity not in self._proposals:
                trials = trials_of(study)
                session = self._in_step(study, trials)
                proposal = None
                if session is not None:
                    proposal = session.propose(study, trial, trials, self._fixed(study))
                if session is not None and proposal is None and self._space is not None:
                    with contextlib.suppress(RuntimeError):  # outside of `study.optimize`
                        study.stop()
                    raise optuna.TrialPruned(f"every architecture of {self._space} is taken.")
                self._proposals[identity] = (
                    None if session is None or proposal is None else (session, proposal)
                )
            return self._proposals[identity]

    def _fixed(self, study: Study) -> dict[str, Any] | None:
        """What Optuna's samplers around this one fix; None where another one uses it."""
        fixed: dict[str, Any] = {}
        sampler = study.sampler
        while sampler is not self:
            if type(sampler) is not PartialFixedSampler:
                return None
            fixed = {**sampler._fixed_params, **fixed}
            sampler = sampler._base_sampler
        return fixed

    def _in_step(self, study: Study, trials: list[FrozenTrial]) -> Session | None:
        """The session, told everything that is finished."""
        session = self._session
        if session is None or not session.is_of(study):
            self._session = self._begin(study, trials, repeat=True)
            if self._space is not None:
                self._labels = LabelCheck(self._space, trials)
        elif session.outgrown_by(trials):
            self._session = self._begin(study, trials, repeat=False)
        else:
            session.tell(trials)
        if self._labels is not None:
            self._labels.look(trials, CLAIM)
        return self._session

    def _begin(self, study: Study, trials: list[FrozenTrial], *, repeat: bool) -> Session | None:
        """A new session; of a search without progress it may repeat the study's asking."""
        learner, since = None, 0
        space = self._space
        if self._given is None:
            learner = SpaceLearner(space)
            for trial in trials:
                if trial.state == TrialState.COMPLETE and learner.add(trial):
                    since = trial.number + 1
            space = learner.space
        if space is None:
            return None
        if self._space is None:
            space = space.with_known(self._costs)
        session = Session(study, space, self._made(study, space), learner, self._stale_after)
        if session.join(trials, since):
            return session
        for first in (since, math.inf) if repeat else (math.inf,):
            session = Session(study, space, self._made(study, space), learner, self._stale_after)
            if session.replay(trials, first):
                return session
        raise AssertionError("unreachable: a replay that asks nothing never fails")

    def _made(self, study: Study, space: CodeSpace) -> Search:
        """A search at its beginning, whose objectives are the study's."""
        if self._given is None:
            made: Search = self._factory(space, objectives=objectives_of(study), seed=self._seed)
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
    if isinstance(space, (str, Mapping, Sequence)):
        raise TypeError(f"a space must be a CodeSpace or an NNI ModelSpace, but got {space!r:.80}.")
    from nni_aiop.engines.nni_space import code_space_from_nni

    return code_space_from_nni(space)


def _whole(study: Study) -> Study:
    """The study itself, of which Hyperband shows samplers only one bracket."""
    whole: Study = getattr(study, "_study", study)
    return whole


def _identity(study: Study, trial: FrozenTrial) -> tuple[BaseStorage, int]:
    """Of a trial among those of all studies in this process."""
    return study._storage, trial._trial_id


def _check_objectives(search: Search, study: Study) -> None:
    own = getattr(search, "objectives", None)
    given = [o.direction for o in objectives_of(study)]
    if own is not None and [o.direction for o in own] != given:
        raise ValueError(
            "the study's directions must be those of the search's objectives, "
            f"{[o.direction for o in own]}, but are {given}."
        )
