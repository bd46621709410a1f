"""Where studies are kept, so that a worker that is killed takes nothing with it.

A trial's process shows that it lives by a heartbeat in the database. Where that has stopped for
longer than a grace period, the next worker that asks for a trial fails the dead one and queues what
it evaluated once more. Optuna has all of this, switched off.
"""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import optuna
from optuna.storages import (
    BaseStorage,
    GrpcStorageProxy,
    JournalStorage,
    RetryHeartbeatStaleTrialCallback,
)
from optuna.storages.journal import JournalFileBackend

from nni_aiop.engines._references import told_by_database, without_password
from nni_aiop.errors import AiopError

__all__ = ["open_storage", "running_again"]

_WAIT = 10  # seconds for the first answer of a gRPC proxy

_LOCK = threading.Lock()  # what is ignored of warnings is the whole process's


def open_storage(
    storage: str | Path | BaseStorage | None,
    *,
    heartbeat_interval: int | None = 60,
    grace_period: int | None = None,
    max_retries: int | None = 5,
) -> BaseStorage | None:
    """Optuna's storage: a journal file behind a path, a database behind a URL.

    In a database the trials that `study.optimize` runs have a heartbeat, and what a killed process
    was evaluating is evaluated again, once, by whichever process asks next. Trials that `study.ask`
    begins have none: open the storage with `heartbeat_interval=None` for such a loop (Optuna warns
    where there is one). A journal and a gRPC proxy cannot have heartbeats: a sampler's
    `stale_after` is for them.

    Args:
        storage: A path or a text without `://` is a journal file; `sqlite:///file.db`,
            `postgresql://user:password@host/name` or any URL of SQLAlchemy is a database;
            `grpc://host:port` is Optuna's gRPC proxy; None and Optuna's own storages come back
            as they are.
        heartbeat_interval: Seconds between two heartbeats of a trial; None for no heartbeats.
        grace_period: Seconds without a heartbeat after which a trial counts as dead; three
            intervals by default. A process that is halted for longer (swapped out, a laptop
            asleep) loses its trial, and its result with it.
        max_retries: Times that what one trial evaluates is begun again before it counts as failed,
            so that a network which kills its process does not kill them all; None for no end.

    Raises:
        ValueError: An interval is no positive number, or the grace period is not longer.
        AiopError: It cannot be opened; the message has no password.
    """
    if grace_period is None and heartbeat_interval is not None:
        grace_period = 3 * heartbeat_interval
    _check_times(heartbeat_interval, grace_period, max_retries)
    if storage is None or isinstance(storage, BaseStorage):
        return storage
    try:
        if isinstance(storage, Path) or "://" not in storage:
            _check_journal(Path(storage))
            return JournalStorage(JournalFileBackend(str(storage)))
        if storage.startswith("grpc://"):
            return _proxy(storage)
        # SQLAlchemy, whose import takes a while, is not needed for the others.
        from nni_aiop.engines._optuna_database import Database

        database = Database(
            _with_driver(storage),
            heartbeat_interval,
            grace_period=grace_period,
            heartbeat_stale_trial_callback=running_again(max_retries),
        )
        return optuna.storages.get_storage(database)
    except Exception as err:
        raise AiopError(
            f"a storage must be a journal file, or a database that Optuna can open, but "
            f"{without_password(str(storage))} is not: {told_by_database(err)}."
        ) from err


def running_again(max_retries: int | None = None) -> RetryHeartbeatStaleTrialCallback:
    """Optuna's function of a study and a dead trial, which queues what that evaluated once more."""
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return RetryHeartbeatStaleTrialCallback(max_retries, inherit_intermediate_values=False)


def _check_times(interval: int | None, grace: int | None, retries: int | None) -> None:
    if interval is not None and not (interval > 0 and grace is not None and grace > interval):
        raise ValueError(
            f"`0 < heartbeat_interval < grace_period` must hold, but got "
            f"heartbeat_interval={interval}, grace_period={grace}."
        )
    if retries is not None and retries < 0:
        raise ValueError(f"max_retries must be at least 0, but got {retries}.")


def _check_journal(path: Path) -> None:
    """Refuse a file of something else, to which Optuna would append before it reads it."""
    if path.exists():
        with open(path, "rb") as file:
            first = file.read(64).lstrip()
        if first and not first.startswith(b'{"op_code"'):
            raise ValueError(f"it begins with {first[:20]!r}")


def _proxy(url: str) -> BaseStorage:
    address = urlsplit(url)
    if not address.hostname or not address.port:
        raise ValueError("a proxy is grpc://host:port")
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        proxy = GrpcStorageProxy(host=address.hostname, port=address.port)
    proxy.wait_server_ready(timeout=_WAIT)
    return proxy


def _with_driver(url: str) -> str:
    """The URL, with the driver that is installed where PostgreSQL's stands without one.

    SQLAlchemy 2.1 looks for psycopg there, 2.0 for psycopg2, which our extra `postgres` brings.
    """
    kind, _, address = url.partition("://")
    return f"postgresql+psycopg2://{address}" if kind == "postgresql" else url
