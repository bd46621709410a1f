"""Many workers on one study: each goes on until the study has as many results as it should."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from nni_aiop.engines._optuna_session import trials_of

__all__ = ["optimize_together"]

_COUNTED = (TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING)


def optimize_together(
    study: Study,
    objective: Callable[[Trial], float | Sequence[float]],
    n_results: int,
    *,
    stale_after: float | None = None,
    poll: float = 1.0,
) -> None:
    """Run trials until the study has `n_results` completed ones, those of all workers counted.

    Call it in as many processes, on as many machines, as there are, with a storage of
    `open_storage`. There will be exactly as many results: what nobody needs any more is pruned
    before it is evaluated, and nobody leaves while another worker's trial may yet be lost.

    Args:
        study: The study, on a storage that the workers share.
        objective: As `Study.optimize` takes it. An exception of it ends this worker.
        n_results: Completed trials wanted, those that are there already included.
        stale_after: Seconds after which a running trial is thought to be dead, and is waited for no
            more; give it, and give the sampler the same, where the storage has no heartbeats (a
            journal, a gRPC proxy). It must be longer than any evaluation, and the machines' clocks
            must agree. None waits for ever.
        poll: Seconds between two looks at the study while there is nothing to do but to wait.
    """
    number = -1
    own: Exception | None = None
    surplus = False

    def alive(trial: FrozenTrial) -> bool:
        if trial.state != TrialState.RUNNING or stale_after is None or not trial.datetime_start:
            return True
        return (datetime.now() - trial.datetime_start).total_seconds() <= stale_after

    def of_number() -> FrozenTrial | None:
        return next((t for t in trials_of(study) if t.number == number), None)

    def needed(trial: Trial) -> float | Sequence[float]:
        nonlocal number, own, surplus
        number, own, surplus = trial.number, None, False
        trials = trials_of(study)
        ahead = sum(t.number < number and t.state in _COUNTED and alive(t) for t in trials)
        if ahead >= n_results:  # another worker began one at the same time
            surplus = True
            raise optuna.TrialPruned
        try:
            return objective(trial)
        except Exception as err:
            own = err
            raise

    while True:
        trials = trials_of(study)
        complete = sum(t.state == TrialState.COMPLETE for t in trials)
        running = sum(t.state == TrialState.RUNNING and alive(t) for t in trials)
        if complete >= n_results:
            return
        if complete + running < n_results:
            number, own, surplus = -1, None, False
            try:
                study.optimize(needed, n_trials=1)
            except (ValueError, UpdateFinishedTrialError) as err:
                latest = of_number()
                if err is own or latest is None or latest.state != TrialState.FAIL:
                    raise
                continue  # others took this process for dead, and failed its trial
            latest = of_number()
            assert latest is not None
            if not surplus and (latest.state != TrialState.PRUNED or latest.params):
                continue
            trials = trials_of(study)
            under_way = any(
                t.state == TrialState.WAITING or (t.state == TrialState.RUNNING and alive(t))
                for t in trials
            )
            if not surplus and not under_way:
                return  # nothing is under way, and the sampler has nothing new: exhausted
        time.sleep(poll)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            fail_stale_trials(study)
