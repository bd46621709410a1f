"""How the workers of a study share the rounds of a search.

What a search lacks that was only told results (its random state, the proposals of its round, where
its next fit starts from) is its `progress`. Whoever asks leaves that with the claim. A worker that
joins, or that was overtaken, takes it from the latest claim: it repeats no asking, and the
proposals of one round are used up by all. Where a round is due, whoever begins first makes it, with
a proposal for each worker; the others see that on its trial, and wait.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nni_aiop.errors import FileFormatError
from nni_aiop.search import Search

__all__ = ["CLAIM", "Rounds", "claim_of", "repeated", "trials_of"]

#: System attribute of a trial that says what was proposed to it.
CLAIM = "nni_aiop:claim"

_MAKING = "making"  # the trial's number, in a claim's place while a round is made

_MOST = 16  # proposals of a round for other workers

_LARGEST = 60_000  # characters of a progress; a text of MySQL has 65,535 bytes

_REMEMBERED = 64  # claims that may be written again

_SHORTEST, _LONGEST = 0.1, 1.0  # seconds between two looks at a round that another one makes

_PATIENCE = 10.0  # seconds after which, or ten times what a round took, its maker counts as dead


def trials_of(study: Study) -> list[FrozenTrial]:
    return study._storage.get_all_trials(study._study_id, deepcopy=False)


def claim_of(trial: FrozenTrial) -> Mapping[str, Any] | None:
    """What a trial claims; None where it does not, or not yet."""
    claim = trial.system_attrs.get(CLAIM)
    return None if not claim or _MAKING in claim else claim


def repeated(trials: Sequence[FrozenTrial]) -> set[int]:
    """Numbers of the trials that failed with their worker and that another trial repeats."""
    return {n for t in trials for n in t.system_attrs.get("retry_history", ())}


class Rounds:
    """The rounds of one search, in one worker.

    Args:
        search: It has `progress`.
        stale_after: Seconds after which a trial counts as dead, waiting ones too; None for never.
    """

    def __init__(self, search: Any, stale_after: float | None = None) -> None:
        self.search = search
        self._stale_after = stale_after
        text = json.dumps(search.identity, sort_keys=True, default=repr)
        self._identity = hashlib.sha256(text.encode()).hexdigest()[:12]
        self._since = 0  # number of the first trial whose progress counts
        self._turn = 0  # of the progress that the search is at
        self._left: dict[str, Any] | None = None  # the last progress that was left or taken
        self._own: dict[int, dict[str, Any]] = {}  # what was left with a claim, by trial
        self._lost: set[int] = set()  # trials whose rounds were waited for in vain
        self._slowest = 0.0  # seconds of a round

    @classmethod
    def of(cls, search: Search, stale_after: float | None = None) -> Rounds | None:
        """The rounds of a search; None of one that has no progress to share."""
        progress = getattr(search, "progress", None)
        return cls(search, stale_after) if callable(progress) and progress() is not None else None

    def knows(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether claims say what a search needs, as all do but those of earlier versions."""
        claims = [claim for claim in map(claim_of, trials) if claim and claim.get("asked")]
        return not claims or any("of" in claim for claim in claims)

    def beside(self, trial: FrozenTrial) -> list[tuple[Any, int | None]]:
        """Points that were asked for beside a proposal, and the trials whose results they have."""
        return [(point, number) for point, number in self._first_claim_of(trial).get("beside", ())]

    def asked(self, trial: FrozenTrial) -> str | None:
        """The key of what the search was asked for the trial; None where it was not."""
        return self._first_claim_of(trial).get("asked")

    def begin(self, trials: Sequence[FrozenTrial], since: int) -> None:
        """Take the latest progress of a trial numbered `since` or above, now and from now on."""
        self._since = since
        self._catch_up(trials)

    def _catch_up(self, trials: Sequence[FrozenTrial]) -> None:
        later = []
        for trial in trials:
            claim = self._claim_of(trial) if trial.number >= self._since else None
            if claim is not None and claim.get("turn", 0) > self._turn:
                later.append((claim["turn"], claim))
        if not later:
            return
        later.sort(key=lambda one: -one[0])
        for _, claim in later:
            try:
                self.search.resume(claim["progress"])
            except FileFormatError:  # of another version of this package
                continue
            self._left = self._compared(self.search.progress())
            break
        self._turn = later[0][0]  # what is left next is the latest, also of what cannot be read

    def enter(
        self,
        study: Study,
        trial: FrozenTrial,
        trials: list[FrozenTrial],
        look: Callable[[list[FrozenTrial]], None],
    ) -> list[FrozenTrial]:
        """All trials as they are when the search may be asked: its round is there, or made here.

        Args:
            study: The study.
            trial: The trial that is to be proposed to.
            trials: All trials.
            look: Tells the search what they say.
        """
        while True:
            look(trials)
            self._catch_up(trials)
            others = [t for t in trials if t.number != trial.number and _is_running(t)]
            if self.search.ready() or not others:
                return trials
            first = self._maker(others)
            if first is None:
                mark = {_MAKING: trial.number}
                study._storage.set_trial_system_attr(trial._trial_id, CLAIM, mark)
                others = self._others(study, trial)
                first = self._maker(others)
                if first is None or first.number > trial.number:
                    try:
                        self._make(1 + min(self._wanting(trial, others), _MOST))
                    except BaseException:
                        study._storage.set_trial_system_attr(trial._trial_id, CLAIM, None)
                        raise
                    return trials
                study._storage.set_trial_system_attr(trial._trial_id, CLAIM, None)
            self._wait(study, first)
            trials = trials_of(study)

    def _others(self, study: Study, trial: FrozenTrial) -> list[FrozenTrial]:
        return [t for t in trials_of(study) if t.number != trial.number and _is_running(t)]

    def _wanting(self, trial: FrozenTrial, others: Sequence[FrozenTrial]) -> int:
        """How many other workers want a proposal, now or when their trials end.

        The dead do not: trials that never claimed anything, and those far behind all others.
        """
        latest = datetime.now() - timedelta(seconds=self._patience)
        return sum(
            trial.number - t.number <= 2 * _MOST
            and bool(t.system_attrs.get(CLAIM) or (t.datetime_start or datetime.min) > latest)
            for t in others
        )

    @property
    def _patience(self) -> float:
        """Seconds that a round is waited for."""
        patience = max(_PATIENCE, 10 * self._slowest)
        if self._stale_after is not None:  # who waits for too long seems to be dead itself
            patience = min(patience, self._stale_after / 4)
        return patience

    def _maker(self, others: Sequence[FrozenTrial]) -> FrozenTrial | None:
        """The first of the trials that are at a round."""
        making = [t for t in others if _is_making(t) and t.number not in self._lost]
        return making[0] if making else None

    def _make(self, n: int) -> None:
        begun = time.monotonic()
        self.search.prepare(n)
        self._slowest = max(self._slowest, time.monotonic() - begun)

    def _wait(self, study: Study, maker: FrozenTrial) -> None:
        """Until another worker has made its round, or is thought to be dead."""
        end = time.monotonic() + self._patience
        pause = _SHORTEST
        while time.monotonic() < end:
            time.sleep(pause)
            pause = min(1.5 * pause, _LONGEST)
            now = study._storage.get_trial(maker._trial_id)
            if not (_is_running(now) and _is_making(now)):
                return
        self._lost.add(maker.number)

    def left(
        self,
        trial: FrozenTrial,
        beside: Sequence[tuple[Any, int | None]],
        more: Sequence[tuple[Any, int | None]],
    ) -> dict[str, Any]:
        """What a claim has more than the proposal: the progress, where it changed by asking.

        Args:
            trial: The trial.
            beside: What was asked for before the proposal was.
            more: What was asked for and is not what is claimed.
        """
        if trial.number in self._own:  # the claim is written again
            own = self._own[trial.number]
            return own | ({"beside": [*own.get("beside", ()), *map(list, more)]} if more else {})
        while len(self._own) > _REMEMBERED:
            del self._own[min(self._own)]
        out: dict[str, Any] = {"of": self._identity}
        progress = self.search.progress()
        compared = self._compared(progress)
        changed = progress is not None and compared != self._left
        if changed and len(json.dumps(progress)) <= _LARGEST:
            self._turn, self._left = self._turn + 1, compared
            out |= {"turn": self._turn, "progress": progress}
        if beside or more:
            out["beside"] = [list(one) for one in (*beside, *more)]
        self._own[trial.number] = out
        return out

    def retract(self, trial: FrozenTrial) -> None:
        """The trial's claim is no more: the next one leaves what it left."""
        self._own.pop(trial.number, None)
        self._left = None

    @staticmethod
    def _compared(progress: Any) -> dict[str, Any]:
        """All but what only shrinks as proposals are used up."""
        return {k: v for k, v in (progress or {}).items() if k != "queue"}

    def _first_claim_of(self, trial: FrozenTrial) -> Mapping[str, Any]:
        """The claim of the trial itself; empty where it has that of one which it repeats."""
        claim = self._claim_of(trial)
        return {} if claim is None or claim["trial"] != trial.number else claim

    def _claim_of(self, trial: FrozenTrial) -> Mapping[str, Any] | None:
        claim = claim_of(trial)
        return claim if claim is not None and claim.get("of") == self._identity else None


def _is_making(trial: FrozenTrial) -> bool:
    # A trial that is run again has the marks of the one that died.
    return (trial.system_attrs.get(CLAIM) or {}).get(_MAKING) == trial.number


def _is_running(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.RUNNING
