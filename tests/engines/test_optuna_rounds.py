"""Workers of one study: who joins repeats nothing, one fit serves all, the dead are taken over."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from nni_aiop.engines import _optuna_rounds
from nni_aiop.engines._optuna_outcomes import _Asked
from nni_aiop.engines._optuna_rounds import CLAIM, Rounds, claim_of
from nni_aiop.engines._optuna_stale import take_over
from nni_aiop.engines.optuna_sampler import SearchSampler
from nni_aiop.engines.optuna_space import sample_of, suggest
from nni_aiop.engines.optuna_storage import open_storage, running_again
from nni_aiop.errors import FileFormatError
from nni_aiop.search import (
    BaseSearch,
    LocalSearch,
    NCPSearch,
    PNAGSearch,
    PredictorTopK,
    RandomSearch,
    RegularizedEvolution,
)
from nni_aiop.search._predictor_based import PredictorSearch
from nni_aiop.search_spaces import get_space
from nni_aiop.spaces import CodeSpace, Condition, Nominal, Ordinal, Sample, SampleCost
from nni_aiop.strategies import NCPSampler

optuna.logging.set_verbosity(optuna.logging.CRITICAL)

SPACE = CodeSpace(
    [
        Ordinal("depth", range(1, 9)),
        Nominal("op", ("conv", "pool", "skip")),
        Ordinal("width", (8, 16, 32, 64)),
    ],
    conditions={"width": Condition("op", ("conv",))},
    costs={"flops": lambda codes: 1 + codes[:, 0] + codes[:, -1]},
)
SMALL = {"starts": 8, "steps": 3}
SEARCHES: dict[str, Callable[..., BaseSearch]] = {
    "random": RandomSearch,
    "evolution": partial(RegularizedEvolution, population=5, tournament=2),
    "local": partial(LocalSearch, initial=3),
    "top-k": partial(PredictorTopK, budget=20, rounds=4, pool=50),
    "ncp": partial(NCPSearch, budget=20, rounds=5, **SMALL),
    "pnag": partial(
        PNAGSearch, budget=20, rounds=3, cost="flops", pool=40, drawn=20,
        evaluator_steps=5, generator_steps=3,
    ),
}  # fmt: skip


def merit(sample: Sample) -> float:
    op = {"conv": 3.0, "pool": 2.0, "skip": 0.0}[str(sample["op"])]
    return float(sample["depth"]) - op * float(sample.get("width", 20)) / 50  # type: ignore[arg-type]


def objective(trial: Trial) -> float:
    return merit(suggest(trial, SPACE))


def coarse(trial: Trial) -> float:
    """Several samples of the space are one and the same to this objective."""
    depth = trial.suggest_int("depth", 1, 7, step=3)
    op = trial.suggest_categorical("op", ["conv", "pool", "skip"])
    return depth - len(op)


def keys(study: optuna.Study) -> list[str]:
    return [SPACE.key(sample_of(t, SPACE)) for t in study.trials]


def study_of(sampler: SearchSampler, storage: BaseStorage | None = None) -> optuna.Study:
    return optuna.create_study(
        storage=storage, study_name="s", direction="maximize", sampler=sampler, load_if_exists=True
    )


@pytest.fixture
def rounds_made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many proposals each round came to, in all workers."""
    made: list[int] = []
    real = PredictorSearch._next_round

    def counted(self: PredictorSearch) -> list[Sample]:
        found = real(self)
        made.append(len(found))
        return found

    monkeypatch.setattr(PredictorSearch, "_next_round", counted)
    yield made


# --- joining ---


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("run", [objective, coarse])
def test_a_study_that_is_taken_up_again_goes_on_the_same(
    name: str, run: Callable[[Trial], float]
) -> None:
    n = 9 if run is coarse else 18
    whole = study_of(SearchSampler(SEARCHES[name], SPACE, seed=3))
    whole.optimize(run, n_trials=n)
    storage = InMemoryStorage()
    for part in (1, 4, 1, n - 6):
        study = study_of(SearchSampler(SEARCHES[name], SPACE, seed=3), storage)
        study.optimize(run, n_trials=part)
    assert [t.params for t in study.trials] == [t.params for t in whole.trials]


def test_who_joins_asks_for_nothing(rounds_made: list[int]) -> None:
    storage = InMemoryStorage()
    study_of(SearchSampler(SEARCHES["ncp"], SPACE, seed=0), storage).optimize(
        objective, n_trials=14
    )
    before = len(rounds_made)
    sampler = SearchSampler(SEARCHES["ncp"], SPACE, seed=0)
    search = sampler.catch_up(study_of(sampler, storage))
    assert isinstance(search, NCPSearch) and len(search.history) == 14
    assert len(rounds_made) == before


def test_another_seed_goes_on_where_the_study_is() -> None:
    storage = InMemoryStorage()
    study_of(SearchSampler(SEARCHES["ncp"], SPACE, seed=0), storage).optimize(
        objective, n_trials=10
    )
    other = study_of(SearchSampler(SEARCHES["ncp"], SPACE, seed=9), storage)
    other.optimize(objective, n_trials=4)
    whole = study_of(SearchSampler(SEARCHES["ncp"], SPACE, seed=0))
    whole.optimize(objective, n_trials=10)
    assert keys(other)[:10] == keys(whole)
    assert len(set(keys(other))) == 14


def test_other_options_take_nothing_from_a_study_but_its_results() -> None:
    storage = InMemoryStorage()
    study_of(SearchSampler(SEARCHES["ncp"], SPACE, seed=0), storage).optimize(
        objective, n_trials=10
    )
    tight = SearchSampler(
        partial(NCPSearch, limits={"flops": 1.5}, budget=20, rounds=5, **SMALL), SPACE, seed=0
    )
    study = study_of(tight, storage)
    study.optimize(objective, n_trials=4)
    assert len(set(keys(study))) == 14
    for trial in study.trials[10:]:
        codes = SPACE.encode([SPACE.complete(sample_of(trial, SPACE))])
        assert SPACE.cost("flops", codes)[0] <= 1.5


def test_a_claim_of_another_version_is_passed_over() -> None:
    storage = InMemoryStorage()
    study = study_of(SearchSampler(SEARCHES["ncp"], SPACE, seed=0), storage)
    study.optimize(objective, n_trials=8)
    last = max(
        (t for t in study.trials if "progress" in (claim_of(t) or ())), key=lambda t: t.number
    )
    claim: Any = dict(claim_of(last) or {})
    running = study.ask()
    storage.set_trial_system_attr(
        running._trial_id, CLAIM, {**claim, "turn": 1000, "progress": {"rng": "?"}}
    )
    fresh = SearchSampler(SEARCHES["ncp"], SPACE, seed=0)
    again = study_of(fresh, storage)
    again.optimize(objective, n_trials=2)
    assert len(set(keys(again)[:8] + keys(again)[9:])) == 10


@pytest.mark.parametrize("name", SEARCHES)
def test_progress_makes_an_equal_search_of_equal_results(name: str) -> None:
    one, other = (SEARCHES[name](SPACE, seed=1) for _ in range(2))
    other._rng.random(7)
    for _ in range(9):
        (sample,) = one.ask(1)
        one.tell(sample, merit(sample))
        other.tell(sample, merit(sample))
    progress = one.progress()
    assert progress is not None
    other.resume(progress)
    assert other.ask(4) == one.ask(4)
    before = other.state_dict()
    for broken in ({}, {**progress, "rng": {"bit_generator": "PCG64"}}):
        with pytest.raises(FileFormatError, match="progress must be complete"):
            other.resume(broken)
    assert other.state_dict() == before


def test_what_others_evaluate_is_not_proposed() -> None:
    search = RandomSearch(SPACE, seed=0)
    (first,) = RandomSearch(SPACE, seed=0).ask(1)
    search.expect(SPACE.canonical(first))
    search.expect(first)
    assert search.pending() == [SPACE.settled(first)]
    assert SPACE.key(search.ask(1)[0]) != SPACE.key(first)
    search.tell(first, 1.0)
    assert SPACE.settled(first) not in search.pending()
    search.expect(first)  # it is known already
    assert SPACE.settled(first) not in search.pending()


# --- one round for all ---


def test_two_workers_share_their_rounds(rounds_made: list[int]) -> None:
    alone = study_of(SearchSampler(SEARCHES["ncp"], SPACE, seed=0))
    alone.optimize(objective, n_trials=20)
    made_alone = len(rounds_made)
    storage = InMemoryStorage()
    workers = [study_of(SearchSampler(SEARCHES["ncp"], SPACE, seed=s), storage) for s in (0, 1)]
    for i in range(20):
        workers[i % 2].optimize(objective, n_trials=1)
    assert len(rounds_made) - made_alone == made_alone
    # One after the other, they are as one.
    assert keys(workers[0]) == keys(alone)


def test_a_round_has_a_proposal_for_each_that_waits(rounds_made: list[int]) -> None:
    storage = InMemoryStorage()
    study = study_of(SearchSampler(SEARCHES["ncp"], SPACE, seed=0), storage)
    study.optimize(objective, n_trials=6)  # the warm-up
    waiting = [study.ask() for _ in range(5)]
    rounds_made.clear()
    found = {SPACE.key(suggest(trial, SPACE)) for trial in waiting}
    assert rounds_made == [5] and len(found) == 5


def test_whoever_waits_takes_what_the_other_made(
    rounds_made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second worker comes while the first is at its fit."""
    storage = InMemoryStorage()
    samplers = [SearchSampler(SEARCHES["ncp"], SPACE, seed=0) for _ in range(2)]
    studies = [study_of(sampler, storage) for sampler in samplers]
    studies[0].optimize(objective, n_trials=6)
    for sampler, study in zip(samplers, studies, strict=True):
        sampler.catch_up(study)
    rounds_made.clear()
    trials = [study.ask() for study in studies]
    at_it, seen = threading.Event(), threading.Event()
    real = Rounds._wait

    def waiting(self: Rounds, study: optuna.Study, maker: FrozenTrial) -> None:
        seen.set()
        real(self, study, maker)

    made = PredictorSearch._fit

    def slow(self: PredictorSearch, *arguments: Any) -> Any:
        at_it.set()
        assert seen.wait(60)
        return made(self, *arguments)

    monkeypatch.setattr(Rounds, "_wait", waiting)
    monkeypatch.setattr(PredictorSearch, "_fit", slow)
    found: dict[int, str] = {}

    def work(i: int) -> None:
        found[i] = SPACE.key(suggest(trials[i], SPACE))

    first = threading.Thread(target=work, args=(0,))
    first.start()
    assert at_it.wait(60)
    second = threading.Thread(target=work, args=(1,))
    second.start()
    for thread in (first, second):
        thread.join(60)
    assert len(set(found.values())) == 2
    assert len(rounds_made) == 1


def test_a_round_whose_maker_died_is_made_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_optuna_rounds, "_PATIENCE", 0.05)
    storage = InMemoryStorage()
    study = study_of(SearchSampler(SEARCHES["ncp"], SPACE, seed=0), storage)
    study.optimize(objective, n_trials=6)
    dead = study.ask()
    storage.set_trial_system_attr(dead._trial_id, CLAIM, {"making": dead.number})
    assert claim_of(storage.get_trial(dead._trial_id)) is None
    study.optimize(objective, n_trials=3)
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert len(complete) == 9


# --- taking over ---


def long_ago(storage: InMemoryStorage, trial: Trial) -> None:
    held = storage._get_trial(trial._trial_id)
    held.datetime_start = datetime.now() - timedelta(seconds=100)


def test_a_stale_trial_is_failed_and_its_architecture_proposed_again() -> None:
    storage = InMemoryStorage()
    study = study_of(NCPSampler(SPACE, budget=12, rounds=4, seed=0, stale_after=60), storage)
    study.optimize(objective, n_trials=3)
    dead, silent = study.ask(), study.ask()
    sample = suggest(dead, SPACE)
    alive = study.ask()
    suggest(alive, SPACE)
    for trial in (dead, silent):
        long_ago(storage, trial)
    study.optimize(objective, n_trials=2)
    states = [t.state for t in study.trials]
    assert states[3:6] == [TrialState.FAIL, TrialState.FAIL, TrialState.RUNNING]
    assert keys(study)[6] == SPACE.key(sample)
    repeating = study.trials[6]
    assert repeating.system_attrs["retry_history"] == [3]
    assert repeating.system_attrs["failed_trial"] == 3
    assert len({keys(study)[i] for i in (0, 1, 2, 5, 6, 7)}) == 6
    search = study.sampler.catch_up(study)  # type: ignore[attr-defined]
    assert all(metrics is not None for _, metrics in search.history)


def test_a_trial_is_taken_over_once_and_not_for_ever() -> None:
    storage = InMemoryStorage()
    study = study_of(SearchSampler(RandomSearch, SPACE, seed=0), storage)
    dead = study.ask()
    suggest(dead, SPACE)
    long_ago(storage, dead)
    trials = storage.get_all_trials(study._study_id, deepcopy=True)
    takers = [study.ask() for _ in range(2)]
    first, second = (take_over(study, t._cached_frozen_trial, trials, 60) for t in takers)
    assert first is not None and first.number == 0 and second is None
    again = study.ask()
    suggest(again, SPACE)
    long_ago(storage, again)
    storage.set_trial_system_attr(again._trial_id, "retry_history", [1, 2, 3, 4, 5])
    trials = storage.get_all_trials(study._study_id, deepcopy=False)
    assert take_over(study, takers[1]._cached_frozen_trial, trials, 60) is None
    assert study.trials[again.number].state == TrialState.FAIL


def test_nothing_is_stale_unless_it_is_said() -> None:
    storage = InMemoryStorage()
    study = study_of(SearchSampler(RandomSearch, SPACE, seed=0), storage)
    dead = study.ask()
    suggest(dead, SPACE)
    long_ago(storage, dead)
    study.optimize(objective, n_trials=1)
    assert study.trials[0].state == TrialState.RUNNING
    with pytest.raises(ValueError, match="stale_after must be a positive number, but got 0"):
        SearchSampler(RandomSearch, SPACE, stale_after=0)


def test_on_a_journal_as_well(tmp_path: Path) -> None:
    path = tmp_path / "s.journal"
    study = study_of(SearchSampler(RandomSearch, SPACE, seed=0), open_storage(path))
    sample = suggest(study.ask(), SPACE)  # and killed
    sampler = SearchSampler(RandomSearch, SPACE, seed=0, stale_after=1e-6)
    again = study_of(sampler, open_storage(path))
    again.optimize(objective, n_trials=1)
    assert [t.state for t in again.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert keys(again)[1] == SPACE.key(sample)


def test_what_was_asked_for_before_is_compared_by_the_labels_it_has() -> None:
    rng = random.Random(0)
    for _ in range(200):
        asked, rows = _Asked(), []
        for number in range(12):
            got = {x: rng.randrange(2) for x in "abc" if rng.random() < 0.6}
            contradicting = [
                n for n, other in rows
                if other != got and (other.items() <= got.items() or got.items() <= other.items())
            ]  # fmt: skip
            found = asked.contradicting(got)
            assert found == max(contradicting, default=-1)
            if found >= 0 and rng.random() < 0.3:
                asked.forget(found)
                rows = [(n, other) for n, other in rows if n > found]
            asked.add(number, got)
            rows.append((number, got))


def test_what_a_dead_worker_was_about_to_leave_to_another_is_not_run_again() -> None:
    """It was killed between claiming what another one had, too, and stepping back."""
    storage = InMemoryStorage()
    study = study_of(SearchSampler(RandomSearch, SPACE, seed=0), storage)
    first = study.ask()
    sample = suggest(first, SPACE)
    late = study.ask()
    claim = dict(claim_of(storage.get_trial(first._trial_id)) or {})
    storage.set_trial_system_attr(late._trial_id, CLAIM, {**claim, "trial": late.number})
    storage.set_trial_state_values(late._trial_id, TrialState.FAIL)
    running_again()(study, storage.get_trial(late._trial_id))
    study.tell(first, 1.0)
    again = study.ask()
    assert study.trials[again.number].system_attrs["retry_history"] == [1]
    assert SPACE.key(suggest(again, SPACE)) != SPACE.key(sample)


def test_of_two_that_are_run_again_the_first_keeps_what_both_claimed() -> None:
    storage = InMemoryStorage()
    study = study_of(SearchSampler(RandomSearch, SPACE, seed=0), storage)
    first = study.ask()
    sample = suggest(first, SPACE)
    claim = dict(claim_of(storage.get_trial(first._trial_id)) or {})
    storage.set_trial_state_values(first._trial_id, TrialState.FAIL)
    late = study.ask()
    storage.set_trial_system_attr(late._trial_id, CLAIM, {**claim, "trial": late.number})
    storage.set_trial_state_values(late._trial_id, TrialState.FAIL)
    for trial in (first, late):
        running_again()(study, storage.get_trial(trial._trial_id))
    one, other = study.ask(), study.ask()
    found = [SPACE.key(suggest(trial, SPACE)) for trial in (other, one)]
    assert found[0] != found[1] == SPACE.key(sample)


def test_a_worker_that_is_killed_while_it_takes_over_loses_nothing() -> None:
    storage = InMemoryStorage()
    study = study_of(SearchSampler(RandomSearch, SPACE, seed=0, stale_after=60), storage)
    dead = study.ask()
    sample = suggest(dead, SPACE)
    long_ago(storage, dead)
    taker = study.ask()
    trials = storage.get_all_trials(study._study_id, deepcopy=False)
    with pytest.MonkeyPatch.context() as patch:  # killed before it fails the dead one
        patch.setattr(storage, "set_trial_state_values", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            take_over(study, taker._cached_frozen_trial, trials, 60)
    long_ago(storage, taker)
    study.optimize(objective, n_trials=2)
    states = [t.state for t in study.trials]
    assert states == [TrialState.FAIL, TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    found = keys(study)[2:]
    assert found.count(SPACE.key(sample)) == 1 and len(set(found)) == 2


def test_who_lost_a_dead_trial_to_another_asks_for_itself() -> None:
    storage = InMemoryStorage()
    study = study_of(SearchSampler(RandomSearch, SPACE, seed=0), storage)
    dead, taker = study.ask(), study.ask()
    suggest(dead, SPACE)
    long_ago(storage, dead)
    before = storage.get_all_trials(study._study_id, deepcopy=True)
    study.tell(dead, 1.0)  # it lived
    assert take_over(study, taker._cached_frozen_trial, before, 60) is None
    attributes = study.trials[taker.number].system_attrs
    assert not attributes[CLAIM] and not attributes["retry_history"]


def test_with_a_learned_cost_asking_is_repeated() -> None:
    """What was evaluated of a cost is no part of a claim."""
    slow = {"ms": SampleCost(lambda sample: float(sample["depth"]))}
    space = CodeSpace(SPACE.dimensions, conditions=SPACE.conditions, costs=slow)

    def made() -> SearchSampler:
        limited = partial(NCPSearch, limits={"ms": 6.0}, budget=12, rounds=4, **SMALL)
        return SearchSampler(limited, space, seed=0)

    assert NCPSearch(space, limits={"ms": 6.0}).progress() is None
    whole = study_of(made())
    whole.optimize(objective, n_trials=10)
    storage = InMemoryStorage()
    for part in (3, 7):
        study = study_of(made(), storage)
        study.optimize(objective, n_trials=part)
    assert all("progress" not in (claim_of(t) or {}) for t in study.trials)
    assert keys(study) == keys(whole)


def test_a_progress_that_is_too_long_is_left_as_soon_as_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = study_of(SearchSampler(SEARCHES["ncp"], SPACE, seed=0))
    monkeypatch.setattr(_optuna_rounds, "_LARGEST", 10)
    study.optimize(objective, n_trials=3)
    assert not any("progress" in (claim_of(t) or ()) for t in study.trials)
    monkeypatch.setattr(_optuna_rounds, "_LARGEST", 60_000)
    study.optimize(objective, n_trials=1)
    assert "progress" in (claim_of(study.trials[3]) or ())


def test_trials_that_never_claimed_make_no_round_larger(rounds_made: list[int]) -> None:
    storage = InMemoryStorage()
    study = study_of(SearchSampler(SEARCHES["ncp"], SPACE, seed=0), storage)
    for _ in range(8):
        long_ago(storage, study.ask())
    study.optimize(objective, n_trials=12)
    assert max(rounds_made[1:]) <= 3


def test_one_progress_that_cannot_be_read_does_not_end_sharing(rounds_made: list[int]) -> None:
    storage = InMemoryStorage()
    workers = [study_of(SearchSampler(SEARCHES["ncp"], SPACE, seed=0), storage) for _ in range(2)]
    workers[0].optimize(objective, n_trials=1)
    claim = dict(claim_of(workers[0].trials[0]) or {})
    broken = workers[0].ask()
    storage.set_trial_system_attr(
        broken._trial_id, CLAIM, {**claim, "trial": 1, "turn": 50, "progress": {"rng": "?"}}
    )
    rounds_made.clear()
    for i in range(14):
        workers[i % 2].optimize(objective, n_trials=1)
    turns = [c["turn"] for t in workers[0].trials[2:] if "turn" in (c := claim_of(t) or {})]
    assert turns == sorted(set(turns)) and turns[0] > 50
    alone = len(rounds_made)
    assert alone <= 8


def test_a_coarser_objective_leaves_nothing_pending() -> None:
    study = study_of(SearchSampler(SEARCHES["evolution"], SPACE, seed=0))
    study.optimize(coarse, n_trials=8)
    search = study.sampler.catch_up(study)  # type: ignore[attr-defined]
    assert search.pending() == []


def test_studies_of_earlier_versions_go_on_the_same() -> None:
    """Their claims say nothing of progress: their asking is repeated."""
    storage = InMemoryStorage()
    study = study_of(SearchSampler(RandomSearch, SPACE, seed=0), storage)
    study.optimize(objective, n_trials=5)
    for trial in study.trials:
        claim = {k: v for k, v in (claim_of(trial) or {}).items() if k in OLD}
        storage._get_trial(trial._trial_id).system_attrs[CLAIM] = claim
    again = study_of(SearchSampler(RandomSearch, SPACE, seed=0), storage)
    again.optimize(objective, n_trials=5)
    whole = study_of(SearchSampler(RandomSearch, SPACE, seed=0))
    whole.optimize(objective, n_trials=10)
    assert keys(again) == keys(whole)


OLD = ("trial", "asked", "fixed", "params")


@pytest.mark.parametrize("name", ["nasbench201", "digits", "multi_resolution"])
def test_searches_of_ready_spaces_leave_their_progress(name: str) -> None:
    """Costs that nothing asks for are no hindrance, also where they are learned."""
    space = get_space(name)
    for search in (NCPSearch(space), PNAGSearch(space, cost="flops"), RandomSearch(space)):
        assert search.progress() is not None
