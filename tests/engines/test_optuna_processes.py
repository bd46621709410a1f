"""Several processes on one storage, and workers that are killed."""

import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

from nni_aiop.engines.optuna_sampler import SearchSampler
from nni_aiop.engines.optuna_space import sample_of
from nni_aiop.engines.optuna_storage import open_storage
from nni_aiop.search import BaseSearch, RandomSearch
from nni_aiop.spaces import CodeSpace, Nominal, Ordinal
from nni_aiop.strategies import NCPSampler

optuna.logging.set_verbosity(optuna.logging.CRITICAL)

SPACE = CodeSpace([Ordinal("depth", range(1, 9)), Nominal("op", ("conv", "pool", "skip", "none"))])

PATIENCE = 600.0  # seconds; only against tests that hang

# Studies one after the other: reads where, how many trials, mode and search, says ready, goes on
# with an empty line, says done.
WORKER = """
import sqlite3, sys, time, warnings, optuna
from nni_aiop.engines.optuna_storage import open_storage
from nni_aiop.engines.optuna_sampler import SearchSampler
from nni_aiop.search import RandomSearch
from nni_aiop.spaces import CodeSpace, Nominal, Ordinal
from nni_aiop.strategies import NCPSampler
warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.CRITICAL)
space = CodeSpace(
    [Ordinal("depth", range(1, 9)), Nominal("op", ("conv", "pool", "skip", "none"))]
)

def work(url, n_trials, mode, search):
    storage = open_storage(url)
    if mode == "heartbeat":
        storage = optuna.storages.RDBStorage(url, heartbeat_interval=1, grace_period=2)
    known = None if mode == "define-by-run" else space
    sampler = (
        NCPSampler(known, budget=8, rounds=3, starts=8, steps=3, seed=0)
        if search == "ncp"
        else SearchSampler(RandomSearch, known, seed=0)
    )
    study = optuna.load_study(study_name="s", storage=storage, sampler=sampler)
    print("ready", flush=True)
    sys.stdin.readline()

    def objective(trial):
        depth = trial.suggest_int("depth", 1, 8)
        op = trial.suggest_categorical("op", ["conv", "pool", "skip", "none"])
        if mode == "heartbeat" and trial.number == 2:
            beats = "SELECT count(*) FROM trial_heartbeats WHERE trial_id = ?"
            database = sqlite3.connect(url.removeprefix("sqlite:///"))
            while not database.execute(beats, (trial._trial_id,)).fetchone()[0]:
                time.sleep(0.1)
            print("stuck", flush=True)
            time.sleep(600)
        return depth + len(op)

    study.optimize(objective, n_trials=n_trials)
    print("done", flush=True)

for line in sys.stdin:
    url, n_trials, mode, search = line.split()
    work(url, int(n_trials), mode, search)
"""


def objective(trial: optuna.Trial) -> float:
    depth = trial.suggest_int("depth", 1, 8)
    return depth + len(trial.suggest_categorical("op", ["conv", "pool", "skip", "none"]))


def sampler_of(search: str) -> SearchSampler:
    """As the workers have it."""
    if search == "ncp":
        return NCPSampler(SPACE, budget=8, rounds=3, starts=8, steps=3, seed=0)
    return SearchSampler(RandomSearch, SPACE, seed=0)


def start_worker() -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WORKER]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def two_workers() -> Iterator[list["subprocess.Popen[str]"]]:
    with start_worker() as one, start_worker() as two:
        hanging = [threading.Timer(PATIENCE, worker.kill) for worker in (one, two)]
        for timer in hanging:
            timer.start()
        yield [one, two]
        for timer in hanging:
            timer.cancel()


def line_of(worker: "subprocess.Popen[str]") -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


def tell(worker: "subprocess.Popen[str]", *words: object) -> None:
    assert worker.stdin is not None
    print(*words, file=worker.stdin, flush=True)


def keys(study: optuna.Study) -> list[str]:
    return [SPACE.key(sample_of(t, SPACE)) for t in study.trials]


@pytest.mark.parametrize("mode", ["given", pytest.param("define-by-run", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("kind", "search"), [("journal", "random"), ("sqlite", "random"), ("journal", "ncp")]
)
def test_two_processes_with_one_seed_never_meet(
    two_workers: list["subprocess.Popen[str]"], tmp_path: Path, kind: str, search: str, mode: str
) -> None:
    url = f"sqlite:///{tmp_path}/s.db" if kind == "sqlite" else str(tmp_path / "s.journal")
    study = optuna.create_study(storage=open_storage(url), study_name="s", direction="maximize")
    for words, answer in ((url, 12, mode, search), "ready"), ((), "done"):
        for worker in two_workers:
            tell(worker, *words)
        assert [line_of(worker) for worker in two_workers] == [answer] * 2
    assert len(study.trials) == 24
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
    assert len(set(keys(study))) == 24


@pytest.mark.parametrize("search", ["random", "ncp"])
def test_a_killed_workers_trial_is_run_again(tmp_path: Path, search: str) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = RDBStorage(
            url,
            heartbeat_interval=1,
            grace_period=2,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
        )
    sampler = sampler_of(search)
    study = optuna.create_study(
        storage=storage, study_name="s", direction="maximize", sampler=sampler
    )
    with start_worker() as worker:
        tell(worker, url, 5, "heartbeat", search)
        assert line_of(worker) == "ready"
        tell(worker)
        assert line_of(worker) == "stuck"
        worker.send_signal(signal.SIGKILL)
        worker.wait(PATIENCE)
    time.sleep(3.5)  # until its heartbeat is stale

    study.optimize(objective, n_trials=5)
    states = [t.state for t in study.trials]
    assert states == [TrialState.COMPLETE] * 2 + [TrialState.FAIL] + [TrialState.COMPLETE] * 5
    assert keys(study)[3] == keys(study)[2]
    assert len(set(keys(study))) == 7

    # Nothing is lost: the same as a run that nobody killed.
    whole = optuna.create_study(direction="maximize", sampler=sampler_of(search))
    whole.optimize(objective, n_trials=7)
    assert [k for i, k in enumerate(keys(study)) if i != 2] == keys(whole)
    told = sampler.catch_up(study)
    assert isinstance(told, BaseSearch)
    assert len(told.history) == 7
    assert all(metrics is not None for _, metrics in told.history)
