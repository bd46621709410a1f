"""Running a search on Optuna: the engine of an experiment file where NNI is not installed."""

from __future__ import annotations

import os
import socket
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from nni_aiop.engines.optuna_sampler import METRICS, SearchSampler
from nni_aiop.engines.optuna_space import sample_of, suggest
from nni_aiop.errors import AiopError
from nni_aiop.search import Objective, Search
from nni_aiop.spaces import CodeSpace, Sample

__all__ = ["EvaluationError", "Result", "open_storage", "run_optuna"]

#: A sample (every label) and its metrics; None where the evaluation failed.
Result = tuple[Sample, dict[str, float] | None]

_WORKER = "worker"


class EvaluationError(AiopError):
    """The evaluation of one sample failed; the run goes on without it."""


def run_optuna(
    space: CodeSpace,
    evaluate: Callable[[Sample], Mapping[str, float]],
    search: Search,
    *,
    max_trials: int,
    storage: str | Path | BaseStorage | None = None,
    study_name: str | None = None,
    n_jobs: int = 1,
    on_result: Callable[[Sample, dict[str, float] | None], None] | None = None,
) -> list[Result]:
    """Samples and metrics of `max_trials` evaluations, in the order in which they began.

    Asking and telling alternate as they do on NNI's sequential engine, so that the same search with
    the same seed proposes the same. With a storage the run can be killed and called again with the
    same arguments and a search at its beginning: what is finished is not evaluated again, what was
    under way in a process of this machine that is gone is evaluated first.

    Args:
        space: The search's space.
        evaluate: From a sample (every label) to its metrics; an exception, or NaN in an objective,
            is a failed evaluation.
        search: What proposes.
        max_trials: Number of evaluations, those of earlier runs on the storage included.
        storage: None for memory, a path for a journal file, a URL for a database, or Optuna's own.
        study_name: The study in the storage; the name of the space by default.
        n_jobs: Number of threads; with one the run is reproducible.
        on_result: Called after each evaluation of this run.

    Raises:
        ValueError: The storage's study has other objectives than the search.
        InfeasibleError: No sample meets the search's limits.
    """
    objectives = getattr(search, "objectives", None) or (Objective("default"),)
    sampler = SearchSampler(search)
    study = optuna.create_study(
        storage=open_storage(storage),
        study_name=study_name or space.name,
        sampler=sampler,
        directions=[o.direction for o in objectives],
        load_if_exists=True,
    )
    _run_abandoned_again(study)
    sampler.catch_up(study)
    reporting = threading.Lock()
    worker = f"{socket.gethostname()}:{os.getpid()}"

    def objective(trial: Trial) -> list[float]:
        trial.set_user_attr(_WORKER, worker)
        sample = space.complete(suggest(trial, space))
        try:
            metrics = {str(k): float(v) for k, v in evaluate(sample).items()}
            values = [metrics[o.metric] for o in objectives]
        except Exception as err:
            raise EvaluationError(f"evaluating {sample} failed: {err!r}.") from err
        trial.set_user_attr(METRICS, metrics)
        return values

    def report(study: Study, trial: FrozenTrial) -> None:
        result = _result(trial, space)
        if on_result is not None and result is not None:
            with reporting:
                on_result(*result)

    missing = max_trials - len(_results(study, space))
    if missing > 0:
        study.optimize(
            objective,
            n_trials=missing,
            n_jobs=n_jobs,
            catch=(EvaluationError,),
            callbacks=[report],
        )
    sampler.catch_up(study)
    return _results(study, space)


def open_storage(storage: str | Path | BaseStorage | None) -> str | BaseStorage | None:
    """Optuna's storage: a journal file behind a path, a database behind a URL."""
    if isinstance(storage, Path) or (isinstance(storage, str) and "://" not in storage):
        return JournalStorage(JournalFileBackend(str(storage)))
    return storage


def _results(study: Study, space: CodeSpace) -> list[Result]:
    trials = study.get_trials(deepcopy=False)
    again = {n for t in trials for n in t.system_attrs.get("retry_history", ())}
    results = [_result(t, space) for t in trials if t.number not in again]
    return [r for r in results if r is not None]


def _result(trial: FrozenTrial, space: CodeSpace) -> Result | None:
    """None for a trial that is not finished, and for the one that found the space exhausted."""
    if not trial.state.is_finished() or not trial.params:
        return None
    sample = space.complete(sample_of(trial, space))
    if trial.state != TrialState.COMPLETE:
        return sample, None
    return sample, dict(trial.user_attrs[METRICS])


def _run_abandoned_again(study: Study) -> None:
    """Queue the running trials of dead processes of this machine once more.

    A journal keeps the trials of a killed process running for ever.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        run_again = RetryHeartbeatStaleTrialCallback()
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if _is_abandoned(trial.user_attrs.get(_WORKER)):
            study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            run_again(study, trial)


def _is_abandoned(worker: Any) -> bool:
    host, _, pid = str(worker).rpartition(":")
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    if int(pid) == os.getpid():  # this process has only begun: the number was used before
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
