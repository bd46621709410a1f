"""A search run on Optuna: pairs, failures, and going on after a kill."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest

from nni_aiop.engines.optuna_experiment import run_optuna
from nni_aiop.errors import InfeasibleError
from nni_aiop.search import Objective, RandomSearch, RegularizedEvolution
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
            return {"default": float("nan")}
        return {"flops": 1.0} if sample["depth"] == 4 else evaluate(sample)

    own = RandomSearch(space(), seed=0)
    found = run_optuna(space(), troubled, own, max_trials=20)
    assert len(found) == len(own.history) == 20
    assert {s["depth"] for s, m in found if m is None} == {2, 3, 4}
    assert {s["depth"] for s, m in found if m is not None} == {1}


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
    storage = tmp_path / "s.journal"
    run_optuna(space(), evaluate, search(), max_trials=1, storage=storage)
    other = search(objectives=[Objective("default", "minimize")])
    with pytest.raises(ValueError, match="directions must be those"):
        run_optuna(space(), evaluate, other, max_trials=2, storage=storage)


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
    killed = subprocess.run(command, timeout=120, check=False, env={**os.environ})
    assert killed.returncode == -signal.SIGKILL
    evaluated: list[Sample] = []

    def counted(sample: Sample) -> dict[str, float]:
        evaluated.append(sample)
        return evaluate(sample)

    found = run_optuna(space(), counted, search(), max_trials=12, storage=storage)
    # Six were finished; the seventh, under way when the kill came, is evaluated first.
    assert evaluated == [s for s, _ in by_hand(12)[6:]]
    assert found == by_hand(12)
