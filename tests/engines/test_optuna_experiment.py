"""A search run on Optuna: pairs, failures, and going on after a kill."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from nni_aiop.engines._optuna_session import METRICS
from nni_aiop.engines.optuna_experiment import _is_abandoned, _result, run_optuna
from nni_aiop.engines.optuna_storage import open_storage
from nni_aiop.errors import AiopError, FileFormatError, InfeasibleError
from nni_aiop.search import NCPSearch, Objective, RandomSearch, RegularizedEvolution
from nni_aiop.spaces import CodeSpace, Condition, Continuous, Nominal, Ordinal, Sample

optuna.logging.set_verbosity(optuna.logging.CRITICAL)


def space() -> CodeSpace:
    return CodeSpace(
        [
            Ordinal("depth", (1, 2, 3, 4)),
            Nominal("op", ((3, 3), (5, 5), None)),
            Continuous("rate", 1e-4, 1.0, log=True),
        ],
        conditions={"rate": Condition("op", ((3, 3), (5, 5)))},
        name="small",
    )


def evaluate(sample: Sample) -> dict[str, float]:
    return {"default": sample["depth"] - sample["rate"], "flops": 2.0 * sample["depth"]}


def search(**options: Any) -> RegularizedEvolution:
    return RegularizedEvolution(space(), population=5, tournament=2, seed=3, **options)


def by_hand(n: int) -> list[Any]:
    """What NNI's sequential engine does: ask for one, evaluate, tell."""
    own, out = search(), []
    for _ in range(n):
        (sample,) = own.ask(1)
        metrics = evaluate(sample)
        own.tell(sample, metrics)
        out.append((sample, metrics))
    return out


def test_it_proposes_what_ask_and_tell_by_turns_propose() -> None:
    seen: list[Any] = []
    found = run_optuna(
        space(), evaluate, search(), max_trials=15, on_result=lambda s, m: seen.append((s, m))
    )
    assert found == seen == by_hand(15)


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_it_goes_on_where_it_was(tmp_path: Path, kind: str) -> None:
    storage = f"sqlite:///{tmp_path}/s.db" if kind == "sqlite" else tmp_path / "s.journal"
    evaluated: list[Sample] = []

    def counted(sample: Sample) -> dict[str, float]:
        evaluated.append(sample)
        return evaluate(sample)

    for total in (4, 4, 9):
        own = search()
        found = run_optuna(space(), counted, own, max_trials=total, storage=storage)
        assert found == by_hand(total)
        assert len(own.history) == total
    assert len(evaluated) == 9


def test_failures_are_results_without_metrics() -> None:
    def troubled(sample: Sample) -> Mapping[str, float]:
        if sample["depth"] == 2:
            raise MemoryError("too deep")
        if sample["depth"] == 3:
            return {"default": float("inf") if sample["rate"] > 0.01 else float("nan")}
        return {"flops": 1.0} if sample["depth"] == 4 else evaluate(sample)

    own, seen = RandomSearch(space(), seed=0), list[Any]()
    found = run_optuna(
        space(), troubled, own, max_trials=20, on_result=lambda s, m: seen.append((s, m))
    )
    assert found == seen == own.history
    assert len(found) == 20
    assert {s["depth"] for s, m in found if m is None} == {2, 3, 4}
    assert {s["depth"] for s, m in found if m is not None} == {1}


def test_what_a_run_leaves(tmp_path: Path) -> None:
    found = run_optuna(space(), evaluate, search(), max_trials=5, out_dir=tmp_path / "o")
    results = json.loads((tmp_path / "o/results.json").read_text())
    assert (results["evaluations"], results["failed"]) == (5, 0)
    assert results["best"]["metrics"]["default"] == max(m["default"] for _, m in found if m)
    assert len((tmp_path / "o/history.csv").read_text().splitlines()) == 6


def test_a_bare_number_is_the_one_objective(tmp_path: Path) -> None:
    found = run_optuna(space(), lambda s: s["depth"], search(objectives=["acc"]), max_trials=4)
    assert all(m == {"acc": s["depth"]} for s, m in found)


def test_a_storage_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    for storage in (tmp_path / "notes.csv", "sqlite:////proc/no.db", "postgresql://a:secret@h/d"):
        with pytest.raises(AiopError, match="a storage must be a journal file, or a") as caught:
            run_optuna(space(), evaluate, search(), max_trials=2, storage=storage)
        assert "secret" not in str(caught.value)
    assert (tmp_path / "notes.csv").read_text() == "a,b\n1,2\n"


def test_several_objectives_and_several_threads() -> None:
    objectives = ["default", Objective("flops", "minimize", 0.5)]
    own = search(objectives=objectives)
    found = run_optuna(space(), evaluate, own, max_trials=20, n_jobs=4)
    assert len({space().key(s) for s, _ in found}) == 20
    assert all(m == evaluate(s) for s, m in found)
    assert len(own.history) == 20


def test_a_small_space_ends_the_run() -> None:
    small = CodeSpace([Ordinal("depth", (1, 2, 3))])
    own = RandomSearch(small)
    found = run_optuna(small, lambda s: {"default": s["depth"]}, own, max_trials=10)
    assert sorted(s["depth"] for s, _ in found) == [1, 2, 3]


def test_what_is_wrong_with_the_search_is_raised(tmp_path: Path) -> None:
    costly = CodeSpace([Ordinal("depth", (1, 2))], costs={"flops": lambda codes: codes[:, 0] + 5})
    with pytest.raises(InfeasibleError):
        limited = RandomSearch(costly, limits={"flops": 1.0})
        run_optuna(costly, lambda s: {"default": 1.0}, limited, max_trials=2)


def test_two_experiments_on_one_storage_do_not_meet(tmp_path: Path) -> None:
    storage = tmp_path / "s.journal"
    first = run_optuna(space(), evaluate, search(), max_trials=3, storage=storage)
    for other in (
        search(objectives=[Objective("default", "minimize")]),
        RegularizedEvolution(space(), population=5, tournament=2, seed=4),
        RandomSearch(space(), seed=3),
        NCPSearch(space(), cost="flops", lam=1.0, seed=3),
        NCPSearch(space(), cost="flops", lam=2.0, seed=3),
    ):
        found = run_optuna(space(), evaluate, other, max_trials=2, storage=storage)
        assert len(found) == len(other.history) == 2
    assert run_optuna(space(), evaluate, search(), max_trials=3, storage=storage) == first


def test_a_study_of_another_search_is_refused(tmp_path: Path) -> None:
    storage = tmp_path / "s.journal"
    run_optuna(space(), evaluate, search(), max_trials=1, storage=storage, study_name="s")
    for other, text in (
        (search(objectives=[Objective("default", "minimize")]), "objectives"),
        (RegularizedEvolution(space(), population=5, tournament=2, seed=4), "seed = 4"),
        (RandomSearch(space(), seed=3), "search = 'RandomSearch', but has 'RegularizedEvolution'"),
    ):
        with pytest.raises(FileFormatError, match=text):
            run_optuna(space(), evaluate, other, max_trials=2, storage=storage, study_name="s")
    optuna.create_study(storage=open_storage(storage), study_name="t", direction="minimize")
    with pytest.raises(ValueError, match="directions must be those"):
        run_optuna(space(), evaluate, search(), max_trials=2, storage=storage, study_name="t")


def test_trials_of_another_program_are_results_where_they_are_of_the_space(tmp_path: Path) -> None:
    storage = tmp_path / "s.journal"
    study = optuna.create_study(storage=open_storage(storage), study_name="s", direction="maximize")
    legal = {"depth": optuna.distributions.IntDistribution(1, 4)}
    other = {"depth": optuna.distributions.IntDistribution(1, 9)}
    study.add_trial(optuna.create_trial(params={"depth": 2}, distributions=legal, value=5.0))
    study.add_trial(optuna.create_trial(params={"depth": 9}, distributions=other, value=7.0))
    study.add_trial(optuna.create_trial(value=9.0))
    found = run_optuna(space(), evaluate, search(), max_trials=3, storage=storage, study_name="s")
    assert len(found) == 3
    assert found[0][0]["depth"] == 2
    assert found[0][1] == {"default": 5.0}


def test_a_larger_number_of_trials_goes_on_with_the_first_plan(tmp_path: Path) -> None:
    """As an experiment file does whose maxTrialNumber, which is the budget, was raised."""
    storage = tmp_path / "s.journal"

    def ncp(budget: int) -> NCPSearch:
        return NCPSearch(space(), budget=budget, starts=4, steps=2, seed=0)

    run_optuna(space(), evaluate, ncp(10), max_trials=5, storage=storage)
    longer = ncp(30)
    found = run_optuna(space(), evaluate, longer, max_trials=8, storage=storage)
    assert longer.budget == 10
    assert found == run_optuna(space(), evaluate, ncp(10), max_trials=8)


def test_an_interrupt_leaves_the_storage_in_order(tmp_path: Path) -> None:
    storage = tmp_path / "s.journal"

    def interrupted(sample: Sample) -> dict[str, float]:
        raise KeyboardInterrupt

    run_optuna(space(), evaluate, search(), max_trials=3, storage=storage)
    with pytest.raises(KeyboardInterrupt):
        run_optuna(space(), interrupted, search(), max_trials=6, storage=storage)
    found = run_optuna(space(), evaluate, search(), max_trials=6, storage=storage)
    assert len(found) == 6
    assert [m is None for _, m in found] == [False] * 3 + [True] + [False] * 2


KILLED = """
import os, signal, sys, optuna
sys.path.insert(0, sys.argv[2])
from test_optuna_experiment import evaluate, run_optuna, search, space

evaluated = 0
def deadly(sample):
    global evaluated
    evaluated += 1
    if evaluated == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return evaluate(sample)

run_optuna(space(), deadly, search(), max_trials=12, storage=sys.argv[1])
"""


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_after_a_kill_nothing_is_lost_and_nothing_evaluated_twice(
    tmp_path: Path, kind: str
) -> None:
    storage = f"sqlite:///{tmp_path}/s.db" if kind == "sqlite" else str(tmp_path / "s.journal")
    command = [sys.executable, "-c", KILLED, storage, str(Path(__file__).parent)]
    killed = subprocess.run(command, timeout=600, check=False, env={**os.environ})
    assert killed.returncode == -signal.SIGKILL
    evaluated: list[Sample] = []

    def counted(sample: Sample) -> dict[str, float]:
        evaluated.append(sample)
        return evaluate(sample)

    found = run_optuna(space(), counted, search(), max_trials=12, storage=storage)
    # Six were finished; the seventh, under way when the kill came, is evaluated first.
    assert evaluated == [s for s, _ in by_hand(12)[6:]]
    assert found == by_hand(12)


def test_a_trial_is_abandoned_where_its_process_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    here = socket.gethostname()
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert not _is_abandoned(f"{here}:{other.pid}")
    other.communicate(b"\n")
    assert _is_abandoned(f"{here}:{other.pid}")
    assert _is_abandoned(f"{here}:{os.getpid()}")  # whose number was used before
    for unknown in (f"{here}x:{other.pid}", f"{here}:x", f"{here}:-1", here, None):
        assert not _is_abandoned(unknown)

    def refused(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)  # another user's is alive
    assert not _is_abandoned(f"{here}:{other.pid}")


def test_what_a_trial_resulted_in() -> None:
    few = CodeSpace([Ordinal("a", (1, 2, 3)), Ordinal("b", (1, 2))])
    ranges = {"a": IntDistribution(1, 5), "b": IntDistribution(1, 2)}
    sample = {"a": 2, "b": 1}

    def resulted(state: TrialState, params: Any = sample, metrics: Any = None) -> Any:
        return _result(
            create_trial(
                state=state,
                params=params,
                distributions={label: ranges.get(label, ranges["a"]) for label in params},
                values=[0.5, 3.0] if state == TrialState.COMPLETE else None,
                user_attrs={METRICS: metrics},
            ),
            few,
            ("x", "y"),
        )

    measured = {"x": 0.5, "y": 3.0}
    assert resulted(TrialState.COMPLETE) == (sample, measured)
    assert resulted(TrialState.COMPLETE, metrics={"x": 9.0, "ms": 1.0}) == (
        sample, {**measured, "ms": 1.0},
    )  # fmt: skip
    assert resulted(TrialState.FAIL) == resulted(TrialState.PRUNED) == (sample, None)
    assert resulted(TrialState.RUNNING) is None
    assert resulted(TrialState.COMPLETE, {"other": 1}) is resulted(TrialState.FAIL, {}) is None
    assert resulted(TrialState.COMPLETE, {"a": 5, "b": 1}) is None  # a value of another range
