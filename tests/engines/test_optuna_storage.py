"""Where studies are kept: heartbeats and retries by default, and nothing taken twice."""

import contextlib
import pickle
import socket
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage, JournalStorage, fail_stale_trials
from optuna.storages._heartbeat import BaseHeartbeat, is_heartbeat_enabled
from optuna.trial import TrialState

from nni_aiop.engines import optuna_storage
from nni_aiop.engines.optuna_storage import open_storage
from nni_aiop.errors import AiopError

optuna.logging.set_verbosity(optuna.logging.CRITICAL)

pytestmark = pytest.mark.filterwarnings("ignore:.*fail_stale_trials is experimental")


def opened(folder: Path, **options: Any) -> BaseStorage:
    storage = open_storage(f"sqlite:///{folder}/s.db", **options)
    assert storage is not None
    return storage


def study_of(storage: BaseStorage) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name="s", load_if_exists=True)


def begin_and_die(study: optuna.Study) -> int:
    """Begin a trial as Optuna's loop does, and then do nothing more; its identity."""
    fail_stale_trials(study)
    return study._storage.create_new_trial(study._study_id)


def in_database(folder: Path, command: str) -> None:
    with contextlib.closing(sqlite3.connect(folder / "s.db")) as database, database:
        database.execute(command)


def let_time_pass(folder: Path) -> None:
    in_database(folder, "UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')")


def test_a_database_beats_and_a_journal_cannot(tmp_path: Path) -> None:
    storage = opened(tmp_path)
    assert isinstance(storage, BaseHeartbeat) and storage.get_heartbeat_interval() == 60
    assert not is_heartbeat_enabled(opened(tmp_path, heartbeat_interval=None))
    assert isinstance(open_storage(tmp_path / "s.journal"), JournalStorage)
    assert isinstance(open_storage(str(tmp_path / "s.journal")), JournalStorage)
    for given in (None, storage):
        assert open_storage(given) is given


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heartbeat_interval": 0}, "heartbeat_interval=0"),
        ({"heartbeat_interval": 5, "grace_period": 5}, "grace_period=5"),
        ({"max_retries": -1}, "max_retries must be at least 0, but got -1"),
    ],
)
def test_times_that_make_no_sense(options: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        open_storage("sqlite://", **options)


@pytest.mark.parametrize("url", ["grpc://localhost", "grpc://:13000"])
def test_a_proxy_has_a_host_and_a_port(url: str) -> None:
    with pytest.raises(AiopError, match="a proxy is grpc://host:port"):
        open_storage(url)


PROXY = """
import sys, warnings
from optuna.storages import run_grpc_proxy_server
from nni_aiop.engines.optuna_storage import open_storage
warnings.simplefilter("ignore")
run_grpc_proxy_server(open_storage(sys.argv[1]), host="localhost", port=int(sys.argv[2]))
"""


def test_a_proxy_has_no_heartbeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grpc", reason="grpcio is not installed")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    url = f"grpc://localhost:{port}"
    monkeypatch.setattr(optuna_storage, "_WAIT", 0.2)
    with pytest.raises(AiopError, match=f"{url} is not: ConnectionError"):
        open_storage(url)

    monkeypatch.setattr(optuna_storage, "_WAIT", 60)
    database = f"sqlite:///{tmp_path}/s.db"
    with subprocess.Popen([sys.executable, "-c", PROXY, database, str(port)]) as server:
        try:
            proxy = open_storage(url)
            assert proxy is not None and not is_heartbeat_enabled(proxy)
            study_of(proxy).optimize(lambda trial: 1.0, n_trials=2)
            proxy.close()
        finally:
            server.terminate()
    assert len(study_of(opened(tmp_path)).trials) == 2


def test_a_trial_that_dies_before_its_first_heartbeat_is_run_again(tmp_path: Path) -> None:
    study = study_of(opened(tmp_path, heartbeat_interval=1, grace_period=2))
    begin_and_die(study)
    asked = opened(tmp_path, heartbeat_interval=None)  # which nobody's loop waits for
    asked.create_new_trial(study._study_id)
    let_time_pass(tmp_path)
    fail_stale_trials(study)
    states = [t.state for t in study.trials]
    assert states == [TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING]
    assert study.trials[0].datetime_complete is not None
    assert study.trials[2].system_attrs["retry_history"] == [0]


def test_a_retry_that_dies_before_its_first_heartbeat_is_run_again(tmp_path: Path) -> None:
    study = study_of(opened(tmp_path, heartbeat_interval=1, grace_period=2, max_retries=1))
    study.enqueue_trial({"x": 1})
    fail_stale_trials(study)
    storage = study._storage
    assert storage.set_trial_state_values(study.trials[0]._trial_id, TrialState.RUNNING)
    let_time_pass(tmp_path)
    fail_stale_trials(study)
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    assert storage.set_trial_state_values(study.trials[1]._trial_id, TrialState.RUNNING)
    let_time_pass(tmp_path)
    fail_stale_trials(study)  # it was the one retry that there may be
    assert [t.state for t in study.trials] == [TrialState.FAIL] * 2


def test_threads_that_meet_on_sqlite_take_everything_once(tmp_path: Path) -> None:
    options = {"heartbeat_interval": 1, "grace_period": 2}
    study = study_of(opened(tmp_path, **options))
    for _ in range(6):
        begin_and_die(study)
    let_time_pass(tmp_path)
    taken: list[int] = []
    together = threading.Barrier(4)

    def work() -> None:
        own = study_of(opened(tmp_path, **options))
        together.wait()
        own.optimize(lambda trial: taken.append(trial.number) or 1.0, n_trials=3)
        own._storage.remove_session()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trials = study.trials
    assert len(taken) == len(set(taken)) == 12
    assert [t.state for t in trials[:6]] == [TrialState.FAIL] * 6
    again = Counter(t.system_attrs.get("failed_trial") for t in trials[6:])
    assert again == {None: 6, **dict.fromkeys(range(6), 1)}


def test_workers_that_begin_together_make_the_tables_once(tmp_path: Path) -> None:
    together = threading.Barrier(4)
    made: list[str] = []

    def work() -> None:
        together.wait()
        made.append(study_of(opened(tmp_path)).study_name)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["s"] * 4


def test_heartbeats_end_with_their_trial(tmp_path: Path) -> None:
    study = study_of(opened(tmp_path, heartbeat_interval=1))
    before = threading.active_count()
    study.optimize(lambda trial: threading.active_count() - before, n_trials=2)
    assert study.best_value == 1  # the thread that beats
    assert threading.active_count() == before


def test_a_heartbeat_that_fails_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage = opened(tmp_path, heartbeat_interval=1)
    assert isinstance(storage, BaseHeartbeat)
    trial = begin_and_die(study_of(storage))
    optuna.logging.enable_propagation()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        in_database(tmp_path, "DROP TABLE trial_heartbeats")
        storage.record_heartbeat(trial)
        assert "No heartbeat now, but it is tried again: OperationalError" in caplog.text
    finally:
        optuna.logging.disable_propagation()
        optuna.logging.set_verbosity(optuna.logging.CRITICAL)


def test_it_travels_between_processes(tmp_path: Path) -> None:
    storage = opened(tmp_path, heartbeat_interval=1, grace_period=2)
    there = pickle.loads(pickle.dumps(storage))
    study_of(there).optimize(lambda trial: 1.0, n_trials=1)
    assert len(study_of(storage).trials) == 1
    assert there.get_heartbeat_interval() == 1
