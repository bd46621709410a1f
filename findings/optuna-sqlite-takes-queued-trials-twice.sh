#!/usr/bin/env bash
# On SQLite, Optuna's workers take one queued trial several times, and retry a stale one several times.
#
# optuna 5.0.0, sqlalchemy 2.1.9: six processes that take 60 queued trials by study.ask() get 60, of
# which only 43 to 50 are different; 40 stale trials that six processes find at once are queued again
# up to 44 times by RetryHeartbeatStaleTrialCallback. RDBStorage reads a trial's state by SELECT ...
# FOR UPDATE, which SQLite does not know, and then writes: two processes read before either writes.
# With PostgreSQL, or where each of SQLite's transactions begins by BEGIN IMMEDIATE (as SQLAlchemy's
# page on SQLite says), it is 60 of 60 and 40 of 40. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet optuna==5.0.0 sqlalchemy==2.1.9
cd "$folder"
cat >twice.py <<'PYTHON'
import multiprocessing
import time
import warnings

import optuna
import sqlalchemy
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, get_storage

warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.CRITICAL)


def storage_of(url, immediate):
    storage = RDBStorage(
        url,
        heartbeat_interval=1,
        grace_period=1,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
    )
    if immediate:
        storage.engine.dispose()

        @sqlalchemy.event.listens_for(storage.engine, "connect")
        def leave_begin_to_us(connection, record):
            connection.isolation_level = None

        @sqlalchemy.event.listens_for(storage.engine, "begin")
        def begin_to_write(connection):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return get_storage(storage)


def work(url, immediate, together, taken):
    study = optuna.load_study(study_name="s", storage=storage_of(url, immediate))
    together.wait()
    optuna.storages.fail_stale_trials(study)
    together.wait()
    taken.put([study.ask().number for _ in range(10)])


def measured(url, immediate):
    """Retries of 40 stale trials, and how many different ones of 60 takings of 60 queued trials."""
    storage = storage_of(url, immediate)
    study = optuna.create_study(study_name="s", storage=storage)
    for _ in range(40):
        storage.record_heartbeat(study.ask()._trial_id)
    for x in range(60):
        study.enqueue_trial({"x": x})
    time.sleep(3)
    together, taken = multiprocessing.Barrier(6), multiprocessing.Queue()
    workers = [
        multiprocessing.Process(target=work, args=(url, immediate, together, taken))
        for _ in range(6)
    ]
    for worker in workers:
        worker.start()
    numbers = [number for worker in workers for number in taken.get(timeout=300)]
    for worker in workers:
        worker.join()
    trials = optuna.load_study(study_name="s", storage=storage_of(url, immediate)).trials
    retries = sum("failed_trial" in trial.system_attrs for trial in trials)
    return retries, len(numbers), len(set(numbers))


if __name__ == "__main__":
    plain = [measured(f"sqlite:///plain{i}.db", False) for i in range(3)]
    begun = [measured(f"sqlite:///begun{i}.db", True) for i in range(3)]
    print("retries of 40, taken, different: as it is", plain, " with BEGIN IMMEDIATE", begun)
    assert all(different < taken for _, taken, different in plain)
    assert begun == [(40, 60, 60)] * 3
PYTHON
env/bin/python twice.py
