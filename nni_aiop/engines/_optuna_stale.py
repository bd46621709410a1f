"""Taking over what a worker that died was evaluating, on storages without heartbeats, too."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nni_aiop.engines._optuna_rounds import CLAIM, claim_of, repeated

__all__ = ["take_over"]

_RETRIES = 5  # times that one architecture is taken over: what kills every worker should not


def take_over(
    study: Study, trial: FrozenTrial, trials: Sequence[FrozenTrial], after: float
) -> FrozenTrial | None:
    """A trial that has been running for too long and claims something, failed for this one.

    Whoever fails it has it: a storage lets a trial end once. Those that claim nothing are failed on
    the way. This trial has its claim then, and is marked as the one that repeats it, as Optuna
    marks a retry.

    Args:
        study: The study.
        trial: The trial that needs something to evaluate.
        trials: All trials.
        after: Seconds since its beginning after which a running trial is thought to be dead.
    """
    now = datetime.now()
    storage, again = study._storage, repeated(trials)
    for other in trials:
        begun = other.datetime_start
        if other.state != TrialState.RUNNING or other.number == trial.number or begun is None:
            continue
        if (now - begun).total_seconds() <= after:
            continue
        claim, before = claim_of(other), [*other.system_attrs.get("retry_history", ())]
        # Of one that was taken over by a worker that died before it could fail it, that has all.
        wanted = claim is not None and other.number not in again and len(before) < _RETRIES
        mine = {
            CLAIM: claim,
            "failed_trial": (before or [other.number])[0],
            "retry_history": [*before, other.number],
        }
        # Written first: a worker that is killed here leaves everything to the next.
        for name, value in mine.items() if wanted else ():
            storage.set_trial_system_attr(trial._trial_id, name, value)
        failed = False
        # Another worker was quicker, or the trial lives and has ended.
        with contextlib.suppress(UpdateFinishedTrialError):
            failed = storage.set_trial_state_values(other._trial_id, TrialState.FAIL)
        if wanted and failed:
            return other
        for name, value in ((CLAIM, None), ("failed_trial", None), ("retry_history", [])):
            if wanted:
                storage.set_trial_system_attr(trial._trial_id, name, value)
    return None
