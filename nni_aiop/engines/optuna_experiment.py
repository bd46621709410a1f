"""Running a search on Optuna: the engine of an experiment file where NNI is not installed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from nni_aiop.engines._optuna_session import METRICS, repeated
from nni_aiop.engines._optuna_shown import keep, kept, name_metrics, show_constraints
from nni_aiop.engines._results import Result, recorded, save_results
from nni_aiop.engines.optuna_sampler import SearchSampler
from nni_aiop.engines.optuna_space import sample_of, suggest
from nni_aiop.engines.optuna_storage import open_storage, running_again
from nni_aiop.errors import AiopError, FileFormatError, SpaceError
from nni_aiop.measures import numbers
from nni_aiop.search import Objective, Search
from nni_aiop.spaces import CodeSpace, Sample

__all__ = ["EvaluationError", "run_optuna"]

_WORKER = "nni_aiop:worker"  # system attribute of a trial: the process that runs it
_WORKER_BEFORE = "worker"  # user attribute in which older versions kept it
_SEARCH = "nni_aiop:search"  # of a study: whose it is
_BEGINNING = "nni_aiop:beginning"  # of a study: the search's state before the first trial


class EvaluationError(AiopError):
    """The evaluation of one sample failed; the run goes on without it."""


def run_optuna(
    space: CodeSpace,
    evaluate: Callable[[Sample], Mapping[str, float] | float],
    search: Search,
    *,
    max_trials: int,
    storage: str | Path | BaseStorage | None = None,
    study_name: str | None = None,
    n_jobs: int = 1,
    on_result: Callable[[Sample, dict[str, float] | None], None] | None = None,
    out_dir: str | os.PathLike[str] | None = None,
) -> list[Result]:
    """Samples and metrics of `max_trials` evaluations, in the order in which they began.

    Asking and telling alternate as they do on NNI's sequential engine, so that the same search with
    the same seed proposes the same. With a storage the run can be killed and called again with the
    same arguments and a search at its beginning: what is finished is not evaluated again, what was
    under way in a process of this machine that is gone is evaluated first. It goes on with the
    budget that the search had at first.

    Args:
        space: The search's space.
        evaluate: From a sample (every label) to its metrics, or to a number where there is one
            objective. An exception, NaN in an objective, or a result that lacks one is a failed
            evaluation. `default` is the objective of a search that is given no `objectives`.
        search: What proposes.
        max_trials: Number of evaluations, those of earlier runs on the storage included.
        storage: None for memory, a path for a journal file, a URL for a database, or Optuna's own.
        study_name: The study in the storage; by default a name that only searches of the same
            class, seed, objectives, limits and options on the same space share. Give one where
            the same search is run with several `evaluate` on one storage.
        n_jobs: Number of threads; with one the run is reproducible.
        on_result: Called after each evaluation of this run.
        out_dir: Where to leave results.json, history.csv and search.png, also of a run that ends
            early; what is there of them is overwritten.

    Raises:
        AiopError: The storage cannot be opened.
        FileFormatError: The storage's study is of another search.
        ValueError: It is another program's, with other directions than the search's objectives.
        InfeasibleError: No sample meets the search's limits.
    """
    objectives = getattr(search, "objectives", None) or (Objective("default"),)
    names = [o.metric for o in objectives]
    bounds = getattr(search, "bounds", {})
    sampler = SearchSampler(search)
    identity = _identity(space, search)
    study = optuna.create_study(
        storage=open_storage(storage),
        study_name=study_name or _name_of(space, identity),
        sampler=sampler,
        directions=[o.direction for o in objectives],
        load_if_exists=True,
    )
    _claim(study, identity, search)
    name_metrics(study, names)
    _run_abandoned_again(study)
    sampler.catch_up(study)
    reporting = threading.Lock()
    worker = f"{socket.gethostname()}:{os.getpid()}"

    def objective(trial: Trial) -> list[float]:
        study._storage.set_trial_system_attr(trial._trial_id, _WORKER, worker)
        sample = space.complete(suggest(trial, space))
        try:
            metrics = numbers(evaluate(sample), names[0] if len(names) == 1 else "default")
        except Exception as err:
            raise EvaluationError(f"evaluating {sample} failed: {err!r}.") from err
        missing = [name for name in names if name not in metrics]
        if missing:
            raise EvaluationError(
                f"a result must have {', '.join(names)}, but lacks {', '.join(missing)}: it has "
                f"the numbers {', '.join(metrics) or 'of nothing'}."
            )
        values = [metrics[name] for name in names]
        trial.set_user_attr(METRICS, metrics)
        over = {k: metrics[k] - bound for k, bound in bounds.items() if k in metrics}
        broken = {k: math.inf if math.isnan(by) else by for k, by in over.items()}
        show_constraints(study._storage, trial._cached_frozen_trial, broken)
        return values

    def report(study: Study, trial: FrozenTrial) -> None:
        result = _result(trial, space, names)
        if on_result is not None and result is not None:
            with reporting:
                on_result(*recorded(sampler.catch_up(study), [result])[0])

    missing = max_trials - len(_results(study, space, names))
    try:
        if missing > 0:
            study.optimize(
                objective,
                n_trials=missing,
                n_jobs=n_jobs,
                catch=(EvaluationError,),
                callbacks=[report],
            )
    finally:
        if out_dir is not None:
            more = {"engine": "optuna", "study": study.study_name, "max_trials": max_trials}
            settings = {**more, "search": type(search).__name__, "seed": identity["seed"]}
            save_results(sampler.catch_up(study), Path(out_dir), settings)
    return recorded(sampler.catch_up(study), _results(study, space, names))


def _identity(space: CodeSpace, search: Search) -> dict[str, Any]:
    """What two searches share that may go on with each other's results."""
    objectives = getattr(search, "objectives", None) or (Objective("default"),)
    options = dict(search.state_dict().get("options", {}))
    options.pop("budget", None)  # a run that is made longer is still the same run
    return {
        "space": space.fingerprint,
        "search": type(search).__name__,
        "seed": getattr(search, "seed", None),
        "objectives": [[o.metric, o.direction, o.weight] for o in objectives],
        "limits": dict(getattr(search, "limits", {})),
        "options": options,
    }


def _name_of(space: CodeSpace, identity: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return f"{space.name}-{digest[:12]}"


def _claim(study: Study, identity: dict[str, Any], search: Search) -> None:
    """Make the study this search's, or else bring the search to the study's beginning.

    Raises:
        FileFormatError: The study is of another search.
    """
    owner = kept(study, _SEARCH)
    if owner is None:
        keep(study, {_BEGINNING: search.state_dict(), _SEARCH: identity})
        return
    for name, own in identity.items():
        if owner.get(name) != own:
            raise FileFormatError(
                f"the study {study.study_name!r} must be of a search with {name} = {own!r}, "
                f"but has {owner.get(name)!r}."
            )
    search.load_state_dict(kept(study, _BEGINNING))


def _results(study: Study, space: CodeSpace, names: Sequence[str]) -> list[Result]:
    trials = study.get_trials(deepcopy=False)
    again = repeated(trials)
    results = [_result(t, space, names) for t in trials if t.number not in again]
    return [r for r in results if r is not None]


def _result(trial: FrozenTrial, space: CodeSpace, names: Sequence[str]) -> Result | None:
    """None for a trial that is not finished, or is of no architecture of the space.

    The one that found the space exhausted has none; another program's may have others.
    """
    if not trial.state.is_finished() or not trial.params.keys() & set(space.labels):
        return None
    try:
        sample = space.complete(sample_of(trial, space))
    except SpaceError:
        return None
    if trial.state != TrialState.COMPLETE:
        return sample, None
    metrics = trial.user_attrs.get(METRICS)
    return sample, {
        **(metrics if isinstance(metrics, dict) else {}),
        **dict(zip(names, trial.values, strict=True)),
    }


def _run_abandoned_again(study: Study) -> None:
    """Queue the running trials of dead processes of this machine once more.

    A journal keeps the trials of a killed process running for ever.
    """
    run_again = running_again()
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        worker = trial.system_attrs.get(_WORKER, trial.user_attrs.get(_WORKER_BEFORE))
        if _is_abandoned(worker):
            with contextlib.suppress(UpdateFinishedTrialError):  # another process was here first
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
