"""Optuna's storage in a database, with the gaps closed through which trials are lost or doubled.

A process that dies between a trial's beginning and its first heartbeat leaves it running for ever;
one that dies between failing a stale trial and queueing it again loses it; one that begins together
with others on an empty database fails, as all want to make its tables. And on SQLite, which has no
row locks, several processes fail, queue and take the same trial at once: six of them that took 60
queued trials took 43 to 50 different ones (`findings/optuna-sqlite-takes-queued-trials-twice.sh`).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import Session

from nni_aiop.engines._references import told_by_database

__all__ = ["Database"]

_WAIT = 60  # seconds for SQLite's lock

_TRIES = 20  # to make the tables, while other processes make them, too

_logger = optuna.logging.get_logger(__name__)


class Database(RDBStorage):
    """Optuna's storage in a database, without these gaps."""

    def __init__(self, url: str, heartbeat_interval: int | None, **options: Any) -> None:
        # A server that was restarted in between is found again.
        more = {"connect_args": {"timeout": _WAIT}} if _is_sqlite(url) else {"pool_pre_ping": True}
        for attempt in range(_TRIES):
            try:
                super().__init__(url, engine_kwargs=more, **options)
                break
            except sqlalchemy.exc.DBAPIError as err:
                # Workers that begin together all make the tables of an empty database.
                made = isinstance(err, sqlalchemy.exc.IntegrityError) or "already exists" in str(
                    err
                )
                self.engine.dispose()
                if not made or attempt == _TRIES - 1:
                    raise
                time.sleep(random.uniform(0.1, 0.5))
        self.heartbeat_interval = heartbeat_interval  # as an argument it is warned of
        self._prepare()

    def _prepare(self) -> None:
        self._thread = threading.local()
        if _is_sqlite(self.url) and self.engine.url.database not in (None, "", ":memory:"):
            self.engine.dispose()  # connections from before
            sqlalchemy.event.listen(self.engine, "connect", _leave_begin_to_us)
            sqlalchemy.event.listen(self.engine, "begin", _begin_to_write)

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        del state["_thread"]
        return state

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self._prepare()

    def record_heartbeat(self, trial_id: int) -> None:
        # An exception would end the thread that beats: the trial would be run by two.
        try:
            super().record_heartbeat(trial_id)
        except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as err:
            why = told_by_database(err.__cause__ or err)
            _logger.warning(f"No heartbeat now, but it is tried again: {why}.")

    # A trial's first heartbeat is there when the trial is. Optuna's loop looks for stale trials
    # right before it asks for its next one, which nobody else does in this thread.

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        """Nothing: what is stale is failed and queued again here, both or neither."""
        for trial_id in super()._get_stale_trial_ids(study_id):
            self._run_again(study_id, trial_id)
        self._thread.looping = True
        return []

    def _begins_in_loop(self) -> bool:
        looping = getattr(self._thread, "looping", False)
        self._thread.looping = False
        return looping

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> models.TrialModel:
        trial = super()._get_prepared_new_trial(study_id, template_trial, session)
        if template_trial is None and self._begins_in_loop():
            session.add(models.TrialHeartbeatModel(trial_id=trial.trial_id))
        return trial

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        if state == TrialState.RUNNING and getattr(self._thread, "looping", False):
            self.record_heartbeat(trial_id)
        taken = super().set_trial_state_values(trial_id, state, values)
        if state == TrialState.RUNNING and taken:
            self._thread.looping = False
        return taken

    def _run_again(self, study_id: int, trial_id: int) -> None:
        queue = _Queue()
        run_again = self.heartbeat_stale_trial_callback
        if run_again is not None:
            run_again(queue, self.get_trial(trial_id))  # type: ignore[arg-type]
        with _create_scoped_session(self.scoped_session) as session:
            models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
            trial = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
            if trial.state != TrialState.RUNNING:
                return  # another process was here first
            trial.state = TrialState.FAIL
            trial.datetime_complete = datetime.now()
            for again in queue.trials:
                self._get_prepared_new_trial(study_id, again, session)


class _Queue:
    """In place of a study, keeps what should be added to it."""

    def __init__(self) -> None:
        self.trials: list[FrozenTrial] = []

    def add_trial(self, trial: FrozenTrial) -> None:
        self.trials.append(trial)


def _is_sqlite(url: str) -> bool:
    return url.partition("://")[0].partition("+")[0] == "sqlite"


# SQLite has no row locks: a transaction that will write must begin so, or two of them read first
# and then write the same (https://docs.sqlalchemy.org/en/21/dialects/sqlite.html).


def _leave_begin_to_us(connection: Any, record: Any) -> None:
    connection.isolation_level = None


def _begin_to_write(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
