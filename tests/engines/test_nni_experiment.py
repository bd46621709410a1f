"""Whole runs on NNI: the right pairs, after whatever end nothing lost and nothing left behind.

Runs on the training service are slow (each trial is a process that imports torch and lightning), so
they are few and small.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nni", reason="NNI is not installed")

from nni_aiop.engines import _nni_reaper
from nni_aiop.engines._nni import importing_nni
from nni_aiop.engines.nni_experiment import (
    _deaf,
    _ended_by_sigterm,
    _run_in_trials,
    _Terminated,
    run_nni,
)
from nni_aiop.errors import AiopError, SpaceError
from nni_aiop.strategies import NCP, RandomSearch

with importing_nni():
    import nni
    import psutil

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PATIENCE = 600.0  # seconds; only against tests that hang

# What NNI 3.0 leaves open: the socket that looks for a busy port, and its log.
nnis_own_leaks = pytest.mark.filterwarnings(
    "ignore:.*unclosed.*:pytest.PytestUnraisableExceptionWarning",
    "ignore:.*:ResourceWarning",
    "ignore:Exception ignored in.*:pytest.PytestUnraisableExceptionWarning",
)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module nni_toy, which trials find, too."""
    monkeypatch.syspath_prepend(str(HERE))
    import nni_toy

    return nni_toy


@pytest.fixture(autouse=True)
def no_manager_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """NNI writes down its experiments in the home folder; and none of its processes may stay."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield
    wait_until(lambda: not left_behind(tmp_path))


def left_behind(folder: Path) -> list[list[str]]:
    """Command lines of managers, trials and reapers that belong to the runs in a folder."""
    experiments = {p.name for p in folder.glob("**/nni/*") if p.is_dir()}
    found = []
    for process in psutil.process_iter(["cmdline", "environ", "status"]):
        words = process.info["cmdline"] or []
        environment = process.info["environ"] or {}
        if process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        if experiments & {*words, environment.get("NNI_EXP_ID")}:
            found.append(words)
    return found


PROGRAM = """
import sys
import nni_toy
from nni_aiop.engines.nni_experiment import run_nni
from nni_aiop.strategies import RandomSearch

out, engine, n, concurrency, hold = sys.argv[1:]
evaluator = nni_toy.ToyEvaluator(log=out + "/log.txt", hold=int(hold) if hold else None)
results = run_nni(
    nni_toy.Toy, evaluator, RandomSearch(seed=1),
    engine=engine, max_trials=int(n), concurrency=int(concurrency), out_dir=out,
)
assert len(results) == int(n), results
assert all(m == nni_toy.score(s) for s, m in results), results
"""


def start(out: Path, engine: str, n: int, concurrency: int, hold: int | None = None) -> Any:
    """A run in a process of its own, whose evaluations wait to be killed after `hold` of them."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)])}
    arguments = [str(a) for a in (out, engine, n, concurrency, "" if hold is None else hold)]
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, *arguments],
        env=environment,
        cwd=out.parent,
    )


def log_of(out: Path, *events: str) -> list[tuple[str, str]]:
    """(event, architecture), begin and end by default, in the order in which they were written."""
    path = out / "log.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    words = [line.split() for line in lines]
    wanted = events or ("begin", "end")
    return [(line[0], line[1]) for line in words if len(line) == 3 and line[0] in wanted]


def is_held(out: Path) -> bool:
    """Whether all evaluations under way wait to be killed, and all others are in the state."""
    begun, ended, held = (log_of(out, event) for event in ("begin", "end", "held"))
    if not held or not ended or len(begun) != len(ended) + len(held):
        return False
    state = json.loads((out / "state.json").read_text())
    return len(state["search"]["history"]) == len(ended)


def wait_until(condition: Callable[[], bool], process: Any = None) -> None:
    """Waits for what comes and stays, unless the process ends before."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process is None or process.poll() is None, "the program ended too early"
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


# --- in this process ---


@pytest.mark.parametrize("space", ["nni_toy:Toy", "class", "instance"])
def test_sequential_run(toy: Any, tmp_path: Path, space: str) -> None:
    given = {"class": toy.Toy, "instance": toy.Toy()}.get(space, space)
    seen: list[Any] = []
    results = run_nni(
        given,
        toy.ToyEvaluator(mode="fail"),
        NCP(budget=12, starts=4, steps=2),
        max_trials=12,
        out_dir=tmp_path / "deep" / "out",
        on_result=lambda s, m: seen.append((s, m)),
    )
    assert seen == results
    assert len(results) == 12
    assert all(m == (None if s["a"] % 2 else toy.score(s)) for s, m in results)
    assert nni.get_current_parameter() is None  # NNI would go on believing it is inside a trial
    assert sorted(p.name for p in (tmp_path / "deep" / "out").iterdir()) == [
        "history.csv",
        "nni.log",
        "report.html",
        "results.json",
        "search.png",
        "state.json",
    ]


def test_nothing_on_the_screen(toy: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_nni(toy.Toy, toy.ToyEvaluator(mode="fail"), RandomSearch(), max_trials=5, out_dir=tmp_path)
    assert capfd.readouterr() == ("", "")
    assert "a is odd" in (tmp_path / "nni.log").read_text()


def test_what_a_run_leaves(toy: Any, tmp_path: Path) -> None:
    def run(out: str, n: int, **options: Any) -> Any:
        given = (toy.Toy, toy.ToyEvaluator(mode="fail"), RandomSearch(seed=1))
        return run_nni(*given, max_trials=n, out_dir=tmp_path / out, **options)

    run("o", 4)
    found = run("o", 6)
    results = json.loads((tmp_path / "o/results.json").read_text())
    assert results["evaluations"] == 6
    assert results["failed"] == sum(m is None for _, m in found)
    assert results["best"]["metrics"]["default"] == max(m["default"] for _, m in found if m)
    assert len((tmp_path / "o/history.csv").read_text().splitlines()) == 7
    log = (tmp_path / "o/nni.log").read_text()
    assert all(f"{i} of 4: " in log for i in range(1, 5)) and "6 of 6: " in log
    assert "best so far: default " in log
    run("plain", 2, results=False)
    assert sorted(p.name for p in (tmp_path / "plain").iterdir()) == ["nni.log", "state.json"]


@pytest.mark.parametrize("level", [logging.WARNING, logging.INFO])
def test_lines_of_the_log_reach_who_wants_them(
    toy: Any, tmp_path: Path, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(level):
        run_nni(toy.Toy, toy.ToyEvaluator(), RandomSearch(), max_trials=2, out_dir=tmp_path)
    lines = [r for r in caplog.records if r.name.startswith("nni_aiop")]
    assert len(lines) == (2 if level == logging.INFO else 0)
    assert "2 of 2: " in (tmp_path / "nni.log").read_text()


def test_results_of_something_else_are_kept(toy: Any, tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("mine")
    with pytest.raises(AiopError, match=r"holds history\.csv and no state\.json"):
        run_nni(toy.Toy, toy.ToyEvaluator(), RandomSearch(), max_trials=2, out_dir=tmp_path)
    assert (tmp_path / "history.csv").read_text() == "mine"


def test_what_was_found_before_an_error_is_left(toy: Any, tmp_path: Path) -> None:
    def stop(sample: Any, metrics: Any) -> None:
        if (n := seen.append(metrics) or len(seen)) == 3:
            raise KeyboardInterrupt(n)

    seen: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        run_nni(
            *(toy.Toy, toy.ToyEvaluator(), RandomSearch()),
            max_trials=9,
            out_dir=tmp_path,
            on_result=stop,
        )
    assert json.loads((tmp_path / "results.json").read_text())["evaluations"] == 3


def test_called_again_it_goes_on(toy: Any, tmp_path: Path) -> None:
    def more(n: int) -> list[Any]:
        return run_nni(
            toy.Toy,
            toy.ToyEvaluator(log=str(tmp_path / "log.txt")),
            RandomSearch(seed=5),
            max_trials=n,
            out_dir=tmp_path,
        )

    first = more(4)
    assert more(9)[:4] == first
    assert len(more(9)) == 9
    assert len(log_of(tmp_path)) == 2 * 9


def test_bad_arguments(toy: Any, tmp_path: Path) -> None:
    options: Any = {"max_trials": 2, "out_dir": tmp_path}
    with pytest.raises(ValueError, match="engine must be sequential or ts, but got 'cgo'"):
        run_nni(toy.Toy, toy.ToyEvaluator(), RandomSearch(), engine="cgo", **options)
    with pytest.raises(ValueError, match="must have concurrency 1, but got 4"):
        run_nni(toy.Toy, toy.ToyEvaluator(), RandomSearch(), concurrency=4, **options)
    with pytest.raises(ValueError, match="of at least 1, but got 0"):
        run_nni(toy.Toy, toy.ToyEvaluator(), RandomSearch(), engine="ts", concurrency=0, **options)
    with socket.socket() as taken, pytest.raises(AiopError, match="port must be free, but"):
        taken.bind(("", 0))
        port = taken.getsockname()[1]
        run_nni(toy.Toy, toy.ToyEvaluator(), RandomSearch(), engine="ts", port=port, **options)
    with pytest.raises(SpaceError, match="must be an NNI ModelSpace, but is a CodeSpace"):
        reference = "nni_aiop.search_spaces.nasbench201:code_space"
        run_nni(reference, toy.ToyEvaluator(), RandomSearch(), **options)
    with pytest.raises(AiopError, match="must name something importable"):
        run_nni("nni_toy:Tay", toy.ToyEvaluator(), RandomSearch(), **options)


def test_killed_in_mid_search_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    program = start(out, "sequential", 8, 1, hold=1)
    wait_until(lambda: is_held(out), program)
    program.kill()
    assert program.wait(PATIENCE) == -signal.SIGKILL
    done = log_of(out)
    interrupted = done[-1]
    assert interrupted[0] == "begin"
    assert start(out, "sequential", 8, 1).wait(PATIENCE) == 0
    events = Counter(log_of(out))
    assert len(events) == 16  # eight architectures began and ended
    assert events.pop(interrupted) == 2
    assert set(events.values()) == {1}
    assert log_of(out)[len(done)] == interrupted  # what was under way comes first


@pytest.fixture
def heard() -> Any:
    """The numbers of the signals that reach the handlers from outside, SIGTERM's and Ctrl-C's."""
    numbers: list[int] = []
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {s: signal.signal(s, lambda number, frame: numbers.append(number)) for s in signals}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


def in_a_thread(action: Callable[[], None]) -> None:
    thread = threading.Thread(target=action)
    thread.start()
    thread.join()


def test_sigterm_leaves_a_run_and_is_passed_on(heard: list[int]) -> None:
    outside = signal.getsignal(signal.SIGTERM)
    with pytest.raises(_Terminated), _ended_by_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) is outside
    with pytest.raises(ZeroDivisionError), _ended_by_sigterm():
        assert signal.getsignal(signal.SIGTERM) is not outside
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is outside
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it stays ignored
    with _ended_by_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]


def test_signals_do_not_disturb_the_end_of_a_run(heard: list[int]) -> None:
    with _deaf():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert heard == []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.raise_signal(number)
    assert heard == [signal.SIGTERM, signal.SIGINT]


def test_a_thread_leaves_signals_as_they_are(heard: list[int]) -> None:
    def entered() -> None:
        with _ended_by_sigterm(), _deaf():
            seen.append(signal.getsignal(signal.SIGTERM))

    seen: list[Any] = []
    in_a_thread(entered)
    assert seen == [signal.getsignal(signal.SIGTERM)]


def test_an_experiment_is_stopped_undisturbed_and_its_reaper_too(heard: list[int]) -> None:
    class Experiment:
        id = "stand-in"

        def start(self, port: int) -> None:
            assert port > 0
            seen.append(reapers())
            raise ZeroDivisionError

        def stop(self) -> None:
            signal.raise_signal(signal.SIGTERM)
            seen.append("stopped")

    def reapers() -> int:
        children = psutil.Process().children()
        return sum(_nni_reaper.__file__ in child.cmdline() for child in children)

    seen: list[Any] = []
    with pytest.raises(ZeroDivisionError):
        _run_in_trials(Experiment(), None)  # type: ignore[arg-type]
    assert seen == [1, "stopped"] and heard == [] and reapers() == 0


@pytest.mark.slow
def test_sigterm_in_mid_search(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    program = start(out, "sequential", 8, 1, hold=1)
    wait_until(lambda: is_held(out), program)
    program.terminate()
    assert program.wait(PATIENCE) == -signal.SIGTERM
    assert start(out, "sequential", 8, 1).wait(PATIENCE) == 0
    ended = [name for event, name in log_of(out) if event == "end"]
    assert len(ended) == len(set(ended)) == 8


# --- on the training service ---


@pytest.mark.slow
@nnis_own_leaks
def test_right_pairs_at_concurrency_four(toy: Any, tmp_path: Path) -> None:
    """NNI's own list_models gives seven wrong pairs of eight here."""
    strategy = RandomSearch(seed=1)
    results = run_nni(
        toy.Toy,
        toy.ToyEvaluator(mode="fail"),
        strategy,
        engine="ts",
        max_trials=8,
        concurrency=4,
        out_dir=tmp_path / "out",
    )
    assert len({(s["a"], s["b"], s["c"]) for s, _ in results}) == 8
    assert all(m == (None if s["a"] % 2 else toy.score(s)) for s, m in results)
    assert {m is None for _, m in results} == {True, False}
    models = list(strategy.list_models())
    assert [model.metric for model in models] == [
        toy.score(model.sample)["default"] for model in models
    ]


@pytest.mark.slow
@nnis_own_leaks
def test_training_service_after_an_exception(toy: Any, tmp_path: Path) -> None:
    def angry(sample: Any, metrics: Any) -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        run_nni(
            toy.Toy,
            toy.ToyEvaluator(),
            RandomSearch(seed=1),
            engine="ts",
            max_trials=4,
            concurrency=2,
            out_dir=tmp_path / "out",
            on_result=angry,
        )
    assert left_behind(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_training_service_after_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    out.mkdir()
    program = start(out, "ts", 3, 2, hold=1)
    wait_until(lambda: is_held(out), program)
    assert left_behind(tmp_path) != []
    program.send_signal(number)
    assert program.wait(PATIENCE) == -number
    wait_until(lambda: not left_behind(tmp_path))
    before = log_of(out)
    assert start(out, "ts", 3, 2).wait(PATIENCE) == 0
    ended = [name for event, name in log_of(out) if event == "end"]
    assert len(ended) == len(set(ended)) == 3
    # Under way at the kill: begun twice, and first of all when the run goes on.
    unfinished = {n for e, n in before if e == "begin"} - {n for e, n in before if e == "end"}
    resumed = [name for event, name in log_of(out)[len(before) :] if event == "begin"]
    assert unfinished and unfinished <= set(resumed)


def test_the_reaper_stops_a_manager_when_its_parent_is_gone() -> None:
    """A stand-in for NNI's manager, known by its command line, with a child that is its trial."""
    trial = "import time; time.sleep(600)"
    manager = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {trial!r}])"
    parent = subprocess.Popen([sys.executable, "-c", trial])
    managed = subprocess.Popen([sys.executable, "-c", manager, "--experiment-id", "reaped1"])
    reaper = subprocess.Popen([sys.executable, _nni_reaper.__file__, str(parent.pid), "reaped1"])
    try:
        family = psutil.Process(managed.pid)
        wait_until(lambda: bool(family.children()), managed)
        (child,) = family.children()
        time.sleep(1.0)
        assert reaper.poll() is None and managed.poll() is None
        parent.kill()
        parent.wait()
        managed.wait(PATIENCE)
        assert reaper.wait(PATIENCE) == 0
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    finally:
        for process in (parent, managed, reaper):
            process.kill()
            process.wait()
