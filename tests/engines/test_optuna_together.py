"""Workers of one study: as many results as wanted, and nobody leaves too early."""

import threading
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.trial import TrialState

from nni_aiop.engines.optuna_storage import open_storage
from nni_aiop.engines.optuna_together import optimize_together
from nni_aiop.search import RandomSearch
from nni_aiop.spaces import CodeSpace, Ordinal
from nni_aiop.strategies import SearchSampler

optuna.logging.set_verbosity(optuna.logging.CRITICAL)

SPACE = CodeSpace([Ordinal("depth", range(1, 5)), Ordinal("width", range(1, 5))])


def objective(trial: optuna.Trial) -> float:
    return float(trial.suggest_int("depth", 1, 4) * trial.suggest_int("width", 1, 4))


def study_of(url: str | None = None, space: CodeSpace | None = None) -> optuna.Study:
    sampler = SearchSampler(RandomSearch, space, seed=0)
    return optuna.create_study(
        storage=open_storage(url), study_name="s", sampler=sampler, load_if_exists=True
    )


def states(study: optuna.Study) -> Counter[TrialState]:
    return Counter(t.state for t in study.trials)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_workers_stop_at_the_number_of_results(tmp_path: Path, kind: str) -> None:
    url = f"sqlite:///{tmp_path}/s.db" if kind == "sqlite" else str(tmp_path / "s.journal")
    study = study_of(url)
    workers = [
        threading.Thread(
            target=optimize_together, args=(study_of(url), objective, 7), kwargs={"poll": 0.05}
        )
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = states(study)
    assert found[TrialState.COMPLETE] == 7
    assert found.keys() <= {TrialState.COMPLETE, TrialState.PRUNED}
    optimize_together(study, objective, 7)
    assert states(study) == found, "there is nothing more to do"


def test_a_worker_waits_for_what_another_one_may_lose() -> None:
    study = study_of()
    other = study.ask()
    later = threading.Timer(0.3, study.tell, [other, None, TrialState.FAIL])
    later.start()
    optimize_together(study, objective, 2, poll=0.02)
    later.join()
    assert [t.state for t in study.trials[:2]] == [TrialState.FAIL, TrialState.COMPLETE]
    assert states(study)[TrialState.COMPLETE] == 2


def test_without_heartbeats_the_dead_are_waited_for_no_longer_than_said() -> None:
    study = study_of()
    study.ask()  # whoever did has died
    optimize_together(study, objective, 2, stale_after=0.2, poll=0.02)
    assert states(study)[TrialState.COMPLETE] == 2


def test_a_space_that_is_exhausted_ends_it() -> None:
    study = study_of(space=SPACE)
    optimize_together(study, objective, 20, poll=0.01)
    assert states(study) == {TrialState.COMPLETE: 16, TrialState.PRUNED: 1}


def test_an_exception_ends_the_worker() -> None:
    def broken(trial: optuna.Trial) -> float:
        raise ValueError("out of memory")

    with pytest.raises(ValueError, match="out of memory"):
        optimize_together(study_of(), broken, 2)


@pytest.mark.parametrize("again", [True, False])
def test_a_process_that_was_taken_for_dead_goes_on(tmp_path: Path, again: bool) -> None:
    study = study_of(f"sqlite:///{tmp_path}/s.db")
    storage = study._storage
    assert isinstance(storage, BaseHeartbeat)
    run_again = storage.get_heartbeat_stale_trial_callback()
    assert run_again is not None
    lost: list[int] = []

    def halted(trial: optuna.Trial) -> float:
        if not lost:
            lost.append(trial.number)
            storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            if again:
                run_again(study, study.trials[trial.number])
        return objective(trial)

    optimize_together(study, halted, 3, poll=0.01)
    assert states(study) == {TrialState.COMPLETE: 3, TrialState.FAIL: 1}


def test_whose_trial_is_one_too_many_waits_for_the_other() -> None:
    """Another worker began between the look at the study and the trial: it may yet be killed."""
    study = study_of()
    begin, others = study.optimize, []

    def late(*arguments: object, **options: object) -> None:
        if not others:
            others.append(study.ask())
        begin(*arguments, **options)  # type: ignore[arg-type]

    study.optimize = late  # type: ignore[method-assign]
    worker = threading.Thread(
        target=optimize_together, args=(study, objective, 1), kwargs={"poll": 0.02}
    )
    worker.start()
    while states(study)[TrialState.PRUNED] < 1:
        worker.join(0.01)
    worker.join(0.3)
    assert worker.is_alive()
    study.tell(others[0], state=TrialState.FAIL)
    worker.join(60)
    assert not worker.is_alive() and states(study)[TrialState.COMPLETE] == 1
