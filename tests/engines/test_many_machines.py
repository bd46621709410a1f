"""Workers that share a study in a real PostgreSQL, and are killed."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from nni_aiop.engines.optuna_space import sample_of, suggest
from nni_aiop.engines.optuna_storage import open_storage
from nni_aiop.search import RandomWarmup
from nni_aiop.spaces import CodeSpace, Nominal, Ordinal
from nni_aiop.strategies import NCPSampler

optuna.logging.set_verbosity(optuna.logging.CRITICAL)

COMPLETE = TrialState.COMPLETE
ROOT = Path(__file__).parents[2]
USER = "postgres"  # who runs the server where we are root, which PostgreSQL refuses to be

SPACE = CodeSpace(
    [Ordinal(f"width_{i}", range(1, 17)) for i in range(3)]
    + [Nominal("op", ("conv", "pool", "skip"))]
)


def programs() -> Path | None:
    """The folder of the newest PostgreSQL server on this machine."""
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda f: int(f.parent.name), reverse=True
    )
    on_path = shutil.which("initdb")
    if on_path is not None:
        folders.append(Path(on_path).resolve().parent)
    needed = ("initdb", "pg_ctl", "postgres", "createdb")
    return next((f for f in folders if all((f / name).exists() for name in needed)), None)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """URL of an empty database on a server of its own, which lives as long as the tests."""
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed")
    folder = programs()
    if folder is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    be: list[str] = []
    if os.geteuid() == 0:
        if not shutil.which("runuser"):
            pytest.skip("PostgreSQL refuses to be run by root, and there is no runuser")
        if subprocess.run(["id", USER], capture_output=True).returncode != 0:
            pytest.skip(f"PostgreSQL refuses to be run by root, and there is no user {USER}")
        be = ["runuser", "-u", USER, "--"]
    # Not pytest's own folder, which another user may not enter; and a socket's path is short.
    with tempfile.TemporaryDirectory(prefix="nni_aiop_pg_", dir="/tmp") as home:
        if be:
            shutil.chown(home, USER)
        data, log = f"{home}/data", f"{home}/log"

        def run(program: str, *arguments: str) -> None:
            done = subprocess.run(
                [*be, str(folder / program), *arguments],
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # a server that is started would hold a pipe open
                stderr=subprocess.PIPE if program != "pg_ctl" else subprocess.DEVNULL,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, (program, done.stderr)

        run("initdb", "-D", data, "-A", "trust", "-U", "nni", "--no-sync")
        # fsync is for power cuts; no TCP, so that nobody else's port is taken.
        options = f"-k {home} -c listen_addresses= -c fsync=off"
        run("pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")
        try:
            run("createdb", "-h", home, "-U", "nni", "many")
            yield f"postgresql://nni@/many?host={home}"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


# A worker is a fork of a process that has imported everything: where it is told where, how many
# results there should be, and what to beat with, it answers with the worker's number.
NURSERY = """
import os, sys, traceback, warnings
import optuna
sys.path.insert(0, sys.argv[1])
from test_many_machines import evaluated, sampler
from nni_aiop.engines.optuna_storage import open_storage
from nni_aiop.engines.optuna_together import optimize_together

warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.CRITICAL)

def work(url, name, log, total):
    storage = open_storage(url, heartbeat_interval=1, grace_period=4, max_retries=None)
    late = None if "://" in url else 15.0  # a journal has no heartbeats
    study = optuna.load_study(study_name=name, storage=storage, sampler=sampler(late))
    optimize_together(study, evaluated(log), int(total), stale_after=late, poll=0.3)

open_storage(sys.argv[2])  # imports what databases need
for line in sys.stdin:
    child = os.fork()
    if not child:
        try:
            work(*line.split())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    print(child, flush=True)
"""


def sampler(stale_after: float | None) -> NCPSampler:
    """One that is quick: what workers do here is to wait."""
    warmup = RandomWarmup(count=120)
    options = {"warmup": warmup, "rounds": 2, "starts": 4, "steps": 2}
    return NCPSampler(SPACE, budget=200, seed=0, stale_after=stale_after, **options)


def evaluated(log: str, seconds: float = 0.3) -> Callable[[optuna.Trial], float]:
    """An objective that writes down who begins and who ends what."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def objective(trial: optuna.Trial) -> float:
        sample = SPACE.complete(suggest(trial, SPACE))

        def write(event: str) -> None:  # in one piece, so that lines of several stay whole
            line = json.dumps([event, os.getpid(), trial.number, SPACE.key(sample)])
            os.write(file, f"{line}\n".encode())

        write("begin")
        time.sleep(seconds)
        write("end")
        return float(sum(v for v in sample.values() if isinstance(v, int)))

    return objective


class Workers:
    """Processes, of which some are killed and replaced."""

    def __init__(self, n: int, *words: object) -> None:
        self._line = " ".join(map(str, words)) + "\n"
        self._nursery = subprocess.Popen(
            [sys.executable, "-c", NURSERY, str(Path(__file__).parent), "sqlite://"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
        )  # fmt: skip
        self.alive = [self._start() for _ in range(n)]
        self.killed: set[int] = set()

    def _start(self) -> int:
        assert self._nursery.stdin is not None and self._nursery.stdout is not None
        self._nursery.stdin.write(self._line)
        return int(self._nursery.stdout.readline())

    def kill_one(self, which: int) -> None:
        pid = self.alive[which]
        if _is_running(pid):
            os.kill(pid, signal.SIGKILL)
            self.killed.add(pid)
        self.alive[which] = self._start()

    def all_done(self) -> bool:
        return not any(_is_running(pid) for pid in self.alive)

    def close(self) -> None:
        os.killpg(self._nursery.pid, signal.SIGKILL)
        self._nursery.communicate()


def _is_running(pid: int) -> bool:
    """Whether a process is there that has not ended (a nursery does not bury its dead)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# The first one has random architectures only; the others fit predictors.
@pytest.mark.parametrize(
    ("kind", "n", "total", "least"),
    [
        ("postgres", 3, 24, 4),
        pytest.param("postgres", 6, 200, 25, marks=pytest.mark.slow),
        pytest.param("sqlite", 6, 200, 25, marks=pytest.mark.slow),
        pytest.param("journal", 6, 200, 25, marks=pytest.mark.slow),
    ],
)
def test_workers_that_are_killed_lose_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, n: int, total: int, least: int
) -> None:
    urls = {"sqlite": f"sqlite:///{tmp_path}/s.db", "journal": f"{tmp_path}/s.journal"}
    url = urls[kind] if kind in urls else request.getfixturevalue("postgres")
    name, log, rng = f"{n}-workers", tmp_path / "log", random.Random(0)
    study = optuna.create_study(storage=open_storage(url), study_name=name, direction="maximize")
    began, next_kill = time.monotonic(), 3
    workers = Workers(n, url, name, log, total)
    try:
        while not workers.all_done():
            assert time.monotonic() - began < 600, "they hang"
            time.sleep(rng.uniform(0.0, 0.2))
            if log.exists() and log.read_text().count("begin") >= next_kill:
                workers.kill_one(rng.randrange(n))
                next_kill += rng.randint(2, 6)
    finally:
        workers.close()

    seconds = time.monotonic() - began
    states = Counter(t.state for t in study.trials)
    found = [SPACE.key(sample_of(t, SPACE)) for t in study.trials if t.state == COMPLETE]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    begun = {number: (pid, key) for event, pid, number, key in lines if event == "begin"}
    died = {t.number for t in study.trials if t.state == TrialState.FAIL}
    often = Counter(key for number, (_, key) in begun.items() if number not in died)
    logging.getLogger(__name__).info(  # shown with --log-cli-level=INFO
        f"{seconds:.0f} s, {len(workers.killed)} kills, {dict(states)}, "
        f"{len(found) - len(set(found))} duplicates, {len(begun)} evaluations begun, "
        f"{len(died & begun.keys())} of them died"
    )
    assert len(workers.killed) >= least
    assert len(found) == len(set(found)) == total
    assert not states[TrialState.RUNNING] and not states[TrialState.WAITING]
    assert set(often.values()) == {1}, "nothing is evaluated twice but what died"
    assert all(begun[number][0] in workers.killed for number in died & begun.keys())
