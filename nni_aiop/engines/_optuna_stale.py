"""Taking over what a worker that died was evaluating, on storages without heartbeats, too."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nni_aiop.engines._optuna_rounds import claim_of

__all__ = ["take_over"]

_RETRIES = 5  # times that one architecture is taken over: what kills every worker should not


def take_over(
    study: Study, trial: FrozenTrial, trials: Sequence[FrozenTrial], after: float
) -> FrozenTrial | None:
    """A trial that has been running for too long and claims something, failed for this one.

    Whoever fails it has it: a storage lets a trial end once. Those that claim nothing are failed on
    the way. This trial is marked as the one that repeats it, as Optuna marks a retry.

    Args:
        study: The study.
        trial: The trial that needs something to evaluate.
        trials: All trials.
        after: Seconds since its beginning after which a running trial is thought to be dead.
    """
    now = datetime.now()
    storage = study._storage
    for other in trials:
        begun = other.datetime_start
        if other.state != TrialState.RUNNING or other.number == trial.number or begun is None:
            continue
        if (now - begun).total_seconds() <= after:
            continue
        failed = False
        # Another worker was quicker, or the trial lives and has ended.
        with contextlib.suppress(UpdateFinishedTrialError):
            failed = storage.set_trial_state_values(other._trial_id, TrialState.FAIL)
        before = [*other.system_attrs.get("retry_history", ())]
        if not failed or not claim_of(other) or len(before) >= _RETRIES:
            continue
        storage.set_trial_system_attr(
            trial._trial_id, "failed_trial", (before or [other.number])[0]
        )
        storage.set_trial_system_attr(trial._trial_id, "retry_history", [*before, other.number])
        return other
    return None
