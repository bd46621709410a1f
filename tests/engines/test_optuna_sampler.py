"""Any search as an Optuna sampler: pairs, failures, fixed values, parallel workers, resumption."""

import copy
import pickle
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from nni_aiop.engines._optuna_draws import draw
from nni_aiop.engines._optuna_session import METRICS
from nni_aiop.engines.optuna_sampler import SearchSampler
from nni_aiop.engines.optuna_space import distributions_of, params_of, sample_of, suggest
from nni_aiop.errors import InfeasibleError
from nni_aiop.search import LocalSearch, Objective, RandomSearch, RegularizedEvolution
from nni_aiop.spaces import CodeSpace, Condition, Constraint, Nominal, Ordinal, Sample

optuna.logging.set_verbosity(optuna.logging.CRITICAL)

SPACE = CodeSpace(
    [
        Ordinal("depth", (1, 2, 3, 4)),
        Nominal("op", ("conv", "pool", "skip")),
        Ordinal("width", (8, 16, 64)),
    ],
    conditions={"width": Condition("op", ("conv",))},
)
PATIENCE = 600.0  # seconds; only against tests that hang
SIZE = 4 * (3 + 1 + 1)  # architectures: the width matters beside conv only


class InOrder:
    """A search that proposes a list from its beginning, and writes down what happens."""

    def __init__(self, space: CodeSpace, samples: list[Sample]) -> None:
        self.space, self.samples = space, samples
        self.events: list[tuple[str, str, Any]] = []

    def ask(self, n: int = 1) -> list[Sample]:
        asked = len([e for e in self.events if e[0] == "ask"])
        out = self.samples[asked : asked + n]
        self.events += [("ask", self.space.key(s), None) for s in out]
        return out

    def tell(self, sample: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        self.events.append(("tell", self.space.key(sample), metrics))

    def state_dict(self) -> dict[str, Any]:
        return {"events": list(self.events)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.events = list(state["events"])


def in_order() -> InOrder:
    seen: dict[str, Sample] = {}
    for sample in SPACE.from_points(SPACE.enumerate_points()):
        seen.setdefault(SPACE.key(sample), sample)
    return InOrder(SPACE, list(seen.values()))


def merit(sample: Mapping[str, Any]) -> float:
    op: float = {"conv": 3.0, "pool": 2.0, "skip": 0.0}[sample["op"]]
    return float(sample["depth"]) + op + float(sample.get("width", 0)) / 8


def objective(trial: Trial) -> float:
    return merit(suggest(trial, SPACE))


def run_objective(trial: Trial) -> float:
    """The same space without naming it: define-by-run, with distributions of its own."""
    sample = {"depth": trial.suggest_int("depth", 1, 4)}
    sample["op"] = trial.suggest_categorical("op", ["conv", "pool", "skip"])
    if sample["op"] == "conv":
        sample["width"] = trial.suggest_categorical("width", [8, 16, 64])
    return merit(sample)


def study_of(sampler: BaseSampler, **options: Any) -> optuna.Study:
    return optuna.create_study(**{"direction": "maximize", **options}, sampler=sampler)


def keys(study: optuna.Study) -> list[str]:
    """Keys of all trials with parameters, whatever their state."""
    return [SPACE.key(sample_of(t, SPACE)) for t in study.trials if t.params]


# --- pairs of sample and metric ---


def test_asking_and_telling_alternate_and_pair_sample_and_metric() -> None:
    search = in_order()
    sampler = SearchSampler(search)
    study = study_of(sampler)
    study.optimize(objective, n_trials=6)
    sampler.catch_up(study)
    assert [kind for kind, _, _ in search.events] == ["ask", "tell"] * 6
    assert [k for kind, k, _ in search.events if kind == "ask"] == keys(study)
    for trial, (_, key, metrics) in zip(study.trials, search.events[1::2], strict=True):
        sample = sample_of(trial, SPACE)
        assert key == SPACE.key(sample)
        assert metrics == {"default": merit(sample)}


def test_failed_pruned_and_nan_trials_are_told_as_failures_and_constraints_as_metrics() -> None:
    search = in_order()
    sampler = SearchSampler(search)
    study = study_of(sampler)

    def troubled(trial: Trial) -> float:
        value = objective(trial)
        if trial.number == 0:
            raise RuntimeError("out of memory")
        if trial.number == 1:
            trial.report(value, 0)
            raise optuna.TrialPruned
        if trial.number == 2:
            return float("nan")
        trial.set_constraint("latency", 1.0 if trial.number == 3 else -1.0)
        trial.set_user_attr(METRICS, {"flops": 7.0})
        return value

    study.optimize(troubled, n_trials=6, catch=(RuntimeError,))
    sampler.catch_up(study)
    told = [metrics for kind, _, metrics in search.events if kind == "tell"]
    assert told[:3] == [None] * 3
    assert [m["constraint:latency"] for m in told[3:]] == [1.0, -1.0, -1.0]
    assert [m["flops"] for m in told[3:]] == [7.0, 7.0, 7.0]
    assert len(set(keys(study))) == 6


def test_a_trial_that_failed_before_it_asked_is_no_architecture() -> None:
    search = in_order()
    sampler = SearchSampler(search)
    study = study_of(sampler)
    study.tell(study.ask(), state=TrialState.FAIL)
    study.optimize(objective, n_trials=2)
    assert len(study.trials) == 3
    assert [kind for kind, _, _ in search.events] == ["ask", "tell", "ask"]


def test_several_objectives_are_told_by_name() -> None:
    names: list[set[str]] = []

    class Telling(RandomSearch):
        def tell(self, sample: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
            names.append(set(metrics or {}))
            super().tell(sample, metrics)

    for metric_names in (None, ["accuracy", "latency"]):
        sampler = SearchSampler(Telling, SPACE, seed=0)
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        if metric_names:
            study._storage.set_study_system_attr(
                study._study_id, "study:metric_names", metric_names
            )
        study.optimize(lambda t: (objective(t), 1.0), n_trials=2)
        sampler.catch_up(study)
        assert isinstance(sampler.search, RandomSearch)
        assert [o.direction for o in sampler.search.objectives] == ["maximize", "minimize"]
    assert names == [{"objective_0", "objective_1"}] * 2 + [{"accuracy", "latency"}] * 2


def test_a_study_that_minimises_refuses_a_search_that_maximises() -> None:
    study = optuna.create_study(sampler=SearchSampler(RandomSearch(SPACE)))
    with pytest.raises(ValueError, match="directions must be those of the search's objectives"):
        study.optimize(objective, n_trials=1)
    down = RandomSearch(SPACE, objectives=[Objective("default", "minimize")])
    study = optuna.create_study(sampler=SearchSampler(down))
    study.optimize(objective, n_trials=1)


def test_a_search_brings_its_own_space() -> None:
    with pytest.raises(ValueError, match="brings its own space"):
        SearchSampler(RandomSearch(SPACE), SPACE)


# --- what the objective asks for ---


def test_the_objective_may_name_its_own_distributions() -> None:
    def own(trial: Trial) -> float:
        sample: Sample = {"op": trial.suggest_categorical("op", ["skip", "pool", "conv"])}
        sample["depth"] = trial.suggest_float("depth", 0.0, 9.0)
        if sample["op"] == "conv":
            sample["width"] = trial.suggest_categorical("width", [64, 16, 8])
        return merit(sample)

    study = study_of(SearchSampler(RandomSearch, SPACE, seed=0))
    study.optimize(own, n_trials=SIZE)
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
    assert len(set(keys(study))) == SIZE


def test_values_outside_of_what_the_objective_allows_are_moved_inside() -> None:
    study = study_of(SearchSampler(RandomSearch, SPACE, seed=0))

    def narrow(trial: Trial) -> float:
        op = trial.suggest_categorical("op", ["other", "pool"])
        return trial.suggest_int("depth", 2, 3) + len(op)

    with pytest.warns(UserWarning, match="trials with other values are not learned from"):
        study.optimize(narrow, n_trials=10)
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
    assert {t.params["depth"] for t in study.trials} == {2, 3}


def test_unknown_labels_are_drawn_and_unused_ones_do_not_matter() -> None:
    search = in_order()
    study = study_of(SearchSampler(search))

    def more(trial: Trial) -> float:
        return trial.suggest_float("rate", 1e-4, 1.0, log=True) + trial.suggest_int("depth", 1, 4)

    with pytest.warns(UserWarning, match="'rate' not known to it and 'op', 'width' never asked"):
        study.optimize(more, n_trials=5)
    assert len({t.params["rate"] for t in study.trials}) == 5
    assert all(set(t.params) == {"rate", "depth"} for t in study.trials)
    assert len([e for e in search.events if e[0] == "ask"]) == 5


def test_all_labels_may_be_asked_in_advance() -> None:
    study = study_of(SearchSampler(RandomSearch, SPACE, seed=0))
    for _ in range(SIZE):
        trial = study.ask(distributions_of(SPACE))  # dead labels, too
        assert set(trial.params) == set(SPACE.labels)
        study.tell(trial, 1.0)
    assert len(set(keys(study))) == SIZE


def test_an_exhausted_space_stops_the_study() -> None:
    study = study_of(SearchSampler(RandomSearch, SPACE, seed=0))
    study.optimize(objective, n_trials=SIZE + 10)
    states = [t.state for t in study.trials]
    assert states == [TrialState.COMPLETE] * SIZE + [TrialState.PRUNED]
    assert len(set(keys(study))) == SIZE


def test_an_exhausted_space_in_a_loop_of_ones_own() -> None:
    study = study_of(SearchSampler(RandomSearch(CodeSpace([Ordinal("depth", (1, 2))]))))
    for _ in range(2):
        trial = study.ask()
        study.tell(trial, trial.suggest_int("depth", 1, 2))
    with pytest.raises(optuna.TrialPruned, match="is taken"):
        study.ask().suggest_int("depth", 1, 2)


# --- fixed values ---


def test_enqueued_trials_pass_through_and_are_learnt_from() -> None:
    search = in_order()
    sampler = SearchSampler(search)
    study = study_of(sampler)
    best = {"depth": 4, "op": "conv", "width": 64}
    study.enqueue_trial(params_of(best, SPACE))
    study.optimize(objective, n_trials=SIZE + 1)
    assert sample_of(study.trials[0], SPACE) == best
    assert search.events[0] == ("tell", SPACE.key(best), {"default": 15.0})
    assert len(set(keys(study))) == SIZE  # and never proposed again


def test_a_waiting_trial_is_not_proposed_to_another_worker() -> None:
    search = in_order()
    study = study_of(SearchSampler(search))
    running = study.ask()
    study.enqueue_trial(params_of(search.samples[0], SPACE))
    assert suggest(running, SPACE) == SPACE.canonical(search.samples[1])


def test_a_partly_fixed_trial_is_completed_with_something_new() -> None:
    study = study_of(SearchSampler(RandomSearch, SPACE, seed=3))
    for _ in range(3):
        study.enqueue_trial({"depth": 2, "op": "conv"})
    study.optimize(objective, n_trials=8)
    fixed = [sample_of(t, SPACE) for t in study.trials[:3]]
    assert all(s["depth"] == 2 and s["op"] == "conv" for s in fixed)
    assert {s["width"] for s in fixed} == {8, 16, 64}
    assert len(set(keys(study))) == 8


def test_a_fixed_part_that_leaves_nothing_new_repeats() -> None:
    study = study_of(SearchSampler(RandomSearch, SPACE, seed=3))
    for _ in range(3):
        study.enqueue_trial({"op": "skip", "depth": 1})
        study.enqueue_trial({"op": "pool"})
    study.optimize(objective, n_trials=6)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 6


LIMITED = CodeSpace(
    [
        Ordinal("depth", range(1, 9)),
        Ordinal("width", (8, 16, 64)),
        Ordinal("groups", (1, 2, 4)),
    ],
    constraints=[Constraint("few groups", lambda s: s["groups"] <= s["depth"])],
    costs={"flops": lambda codes: 1 + 7 * codes[:, 0] + 8 * codes[:, 1]},
)


def suggested(trial: Trial) -> float:
    return float(suggest(trial, LIMITED)["depth"])


@pytest.mark.parametrize("seed", range(3))
def test_a_partly_fixed_trial_keeps_limits_and_constraints(seed: int) -> None:
    """At width 64 only depth 1 is within the limit, and depth 1 can only be one group."""
    make = partial(RandomSearch, limits={"flops": 9.0})
    sampler = SearchSampler(make, LIMITED, seed=seed)
    study = study_of(sampler)
    study.enqueue_trial({"width": 64})
    study.enqueue_trial({"groups": 4})
    study.optimize(suggested, n_trials=2)
    first, second = (sample_of(t, LIMITED) for t in study.trials)
    assert first == {"depth": 1, "width": 64, "groups": 1}
    assert second["groups"] == 4
    assert LIMITED.violation(second) is None
    assert LIMITED.cost("flops", LIMITED.encode([second]))[0] <= 9.0
    # It takes no more than one proposal from the search.
    search = sampler.catch_up(study)
    assert isinstance(search, RandomSearch)
    assert len(search.pending()) <= 2


def test_a_fixed_part_above_every_limit_is_the_users_order() -> None:
    make = partial(RandomSearch, limits={"flops": 8.0})
    study = study_of(SearchSampler(make, LIMITED, seed=0))
    study.enqueue_trial({"width": 64})
    study.optimize(suggested, n_trials=3)
    samples = [sample_of(t, LIMITED) for t in study.trials]
    assert samples[0]["width"] == 64
    assert (LIMITED.cost("flops", LIMITED.encode(samples[1:])) <= 8.0).all()


def test_illegal_enqueued_values_are_tolerated() -> None:
    search = in_order()
    sampler = SearchSampler(search)
    study = study_of(sampler)
    study.enqueue_trial({"depth": 77})
    study.enqueue_trial({"op": "no such choice"})
    with pytest.warns(UserWarning, match="out of range"):
        study.optimize(lambda t: float(t.suggest_int("depth", 1, 4)), n_trials=1)
    study.optimize(objective, n_trials=4, catch=(ValueError,))
    sampler.catch_up(study)
    assert study.trials[0].params["depth"] == 77
    assert study.trials[1].state == TrialState.FAIL  # Optuna itself refuses it
    assert [t.state for t in study.trials[2:]] == [TrialState.COMPLETE] * 3
    assert len([e for e in search.events if e[0] == "tell" and e[2] is not None]) == 3


def test_a_fixed_sample_that_breaks_a_constraint_is_not_learnt_from() -> None:
    space = CodeSpace(
        [Ordinal("a", (1, 2, 3)), Ordinal("b", (1, 2, 3))],
        constraints=[Constraint("a <= b", lambda s: s["a"] <= s["b"])],
    )
    sampler = SearchSampler(RandomSearch, space, seed=0)
    study = study_of(sampler)
    study.enqueue_trial({"a": 3, "b": 1})
    study.optimize(lambda t: t.suggest_int("a", 1, 3) + t.suggest_int("b", 1, 3), n_trials=4)
    search = sampler.catch_up(study)
    assert isinstance(search, RandomSearch)
    assert len(search.history) == 3
    assert all(s["a"] <= s["b"] for s, _ in search.history)


def test_partial_fixed_sampler_of_optuna() -> None:
    inner = SearchSampler(RandomSearch, SPACE, seed=0)
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        sampler = optuna.samplers.PartialFixedSampler({"op": "conv"}, inner)
    study = study_of(sampler)
    study.optimize(objective, n_trials=5)
    assert {t.params["op"] for t in study.trials} == {"conv"}


def test_foreign_trials_are_learnt_from() -> None:
    source = study_of(optuna.samplers.RandomSampler(seed=0))
    source.optimize(objective, n_trials=12)
    search = RandomSearch(SPACE)
    study = study_of(SearchSampler(search))
    study.add_trials(source.trials)
    study.optimize(objective, n_trials=4)
    assert set(keys(study)[12:]).isdisjoint(keys(source))
    assert len(search.history) == len({*keys(source), *keys(study)[:-1]})


# --- exceptions ---


class Broken(RandomSearch):
    def tell(self, sample: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        raise RuntimeError("a bug")


def test_a_broken_search_is_heard_and_leaves_no_wrong_trial() -> None:
    # An exception in after_trial would be stored as COMPLETE, one in before_trial as RUNNING.
    study = study_of(SearchSampler(Broken, SPACE, seed=0))
    study.optimize(objective, n_trials=3, catch=(RuntimeError,))
    states = [t.state for t in study.trials]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.FAIL]
    with pytest.raises(RuntimeError, match="a bug"):
        study.optimize(objective, n_trials=1)


def test_limits_that_nothing_meets_are_one_sentence() -> None:
    space = CodeSpace(
        [Ordinal("depth", (1, 2, 3))], costs={"flops": lambda codes: codes[:, 0] * 2 + 1}
    )
    make = partial(RandomSearch, limits={"flops": 0.5})
    study = study_of(SearchSampler(make, space, seed=0))
    with pytest.raises(InfeasibleError, match=r"flops"):
        study.optimize(lambda t: float(t.suggest_int("depth", 1, 3)), n_trials=1)


def test_hooks_never_raise() -> None:
    sampler = SearchSampler(Broken, SPACE, seed=0)
    study = study_of(sampler)
    study.ask()
    trial = study.trials[0]
    sampler.before_trial(study, trial)
    for state in (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED):
        sampler.after_trial(study, trial, state, None)
    sampler.reseed_rng()


def test_hyperband_shows_brackets_and_hides_no_trial() -> None:
    study = study_of(
        SearchSampler(RandomSearch, SPACE, seed=0),
        pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=9),
    )

    def reporting(trial: Trial) -> float:
        value = objective(trial)
        for step in range(9):
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    study.optimize(reporting, n_trials=SIZE)
    assert len(set(keys(study))) == SIZE


# --- reproduction and resumption ---


def make_given() -> SearchSampler:
    evolution = partial(RegularizedEvolution, population=5, tournament=2)
    return SearchSampler(evolution, SPACE, seed=5)


def make_instance() -> SearchSampler:
    return SearchSampler(RegularizedEvolution(SPACE, population=5, tournament=2, seed=5))


def make_learning() -> SearchSampler:
    return SearchSampler(partial(RegularizedEvolution, population=5, tournament=2), seed=5)


def make_local() -> SearchSampler:
    return SearchSampler(partial(LocalSearch, initial=3), SPACE, seed=5)


MAKERS: list[Callable[[], SearchSampler]] = [make_given, make_instance, make_learning, make_local]


@pytest.mark.parametrize("make", MAKERS)
def test_a_seed_is_reproducible_and_an_interrupted_study_goes_on_the_same(
    make: Callable[[], SearchSampler], tmp_path: Path
) -> None:
    whole = study_of(make())
    whole.optimize(run_objective, n_trials=16)
    again = study_of(make())
    again.optimize(run_objective, n_trials=16)
    assert keys(again) == keys(whole)

    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))
    for part in (1, 2, 6, 7):
        study = study_of(make(), storage=storage, study_name="s", load_if_exists=True)
        study.optimize(run_objective, n_trials=part)
    assert keys(study) == keys(whole)
    assert [t.values for t in study.trials] == [t.values for t in whole.trials]


@pytest.mark.parametrize("make", MAKERS)
def test_a_sampler_travels_by_pickle(make: Callable[[], SearchSampler]) -> None:
    whole = study_of(make())
    whole.optimize(run_objective, n_trials=12)
    study = study_of(make())
    study.optimize(run_objective, n_trials=6)
    for travelled in (pickle.loads(pickle.dumps(study.sampler)), copy.deepcopy(study.sampler)):
        assert isinstance(travelled, SearchSampler)
        study.sampler = travelled
        study.optimize(run_objective, n_trials=3)
    assert keys(study) == keys(whole)


def test_another_seed_goes_on_without_repeating() -> None:
    study = study_of(SearchSampler(RandomSearch, SPACE, seed=0))
    study.optimize(objective, n_trials=8)
    study.sampler = SearchSampler(RandomSearch, SPACE, seed=1)
    study.optimize(objective, n_trials=8)
    assert len(set(keys(study))) == 16


def test_without_a_seed_two_samplers_differ() -> None:
    orders = []
    for _ in range(2):
        study = study_of(SearchSampler(RandomSearch, SPACE))
        study.optimize(objective, n_trials=10)
        orders.append(keys(study))
    assert orders[0] != orders[1]


@pytest.mark.parametrize("storage", [None, optuna.storages.InMemoryStorage()])
def test_a_sampler_may_serve_a_second_study(storage: BaseStorage | None) -> None:
    sampler = make_given()
    for _ in range(2):
        study = study_of(sampler, storage=storage)
        study.optimize(objective, n_trials=8)
        fresh = study_of(make_given())
        fresh.optimize(objective, n_trials=8)
        assert keys(study) == keys(fresh)


# --- parallel workers ---


def slowly(run: Callable[[Trial], float]) -> Callable[[Trial], float]:
    def slow(trial: Trial) -> float:
        value = run(trial)
        time.sleep(0.002 * (trial.number % 3))
        return value

    return slow


@pytest.mark.parametrize("make", MAKERS)
def test_four_threads_never_meet(make: Callable[[], SearchSampler]) -> None:
    study = study_of(make())
    study.optimize(slowly(run_objective), n_trials=SIZE, n_jobs=4)
    found = keys(study)
    assert len(found) == SIZE
    if make is make_learning:  # which cannot know what a value never seen leads to
        assert len(set(found)) >= SIZE - 2
    else:
        assert len(set(found)) == SIZE


def test_two_workers_that_claim_at_once_both_step_back(tmp_path: Path) -> None:
    """Both have written their claim before either reads: the worst that can happen."""
    path = str(tmp_path / "study.journal")
    barrier = threading.Barrier(2)
    claims: list[str | None] = []

    class Meeting(JournalStorage):
        first = True

        def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
            meets, self.first = self.first, False
            if meets:
                barrier.wait(timeout=PATIENCE)
            super().set_trial_system_attr(trial_id, key, value)
            claims.append(value and value["asked"])
            if meets:
                barrier.wait(timeout=PATIENCE)

    study_of(SearchSampler(in_order()), storage=Meeting(JournalFileBackend(path)), study_name="s")
    found: list[Sample] = []

    def work() -> None:
        study = optuna.load_study(
            study_name="s",
            storage=Meeting(JournalFileBackend(path)),
            sampler=SearchSampler(in_order()),
        )
        found.append(suggest(study.ask(), SPACE))

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=PATIENCE)
    assert claims[0] == claims[1]  # they met ...
    assert claims.count(None) >= 1
    assert len({SPACE.key(s) for s in found}) == 2  # ... and parted
    first_two = [SPACE.key(s) for s in in_order().samples[:2]]
    assert {SPACE.key(s) for s in found} == set(first_two)  # without losing a proposal


def test_a_trial_left_running_keeps_its_architecture() -> None:
    """A journal leaves the trial of a killed worker running for ever."""
    storage = optuna.storages.InMemoryStorage()
    study = study_of(make_given(), storage=storage, study_name="s")
    study.optimize(objective, n_trials=3)
    suggest(study.ask(), SPACE)  # and killed
    study = study_of(make_given(), storage=storage, study_name="s", load_if_exists=True)
    study.optimize(objective, n_trials=SIZE)
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert len(complete) == SIZE - 1
    assert len(set(keys(study))) == SIZE


def test_a_trial_that_is_run_again_goes_on_with_its_claim() -> None:
    search = in_order()
    sampler = SearchSampler(search)
    study = study_of(sampler)
    killed = study.ask()
    killed.suggest_int("depth", 1, 4)  # it dies before it asks for the op
    study._storage.set_trial_state_values(killed._trial_id, TrialState.FAIL)
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        run_again = optuna.storages.RetryHeartbeatStaleTrialCallback()
    run_again(study, study.trials[0])
    study.optimize(objective, n_trials=3)
    assert keys(study)[1:] == [SPACE.key(s) for s in search.samples[:3]]
    sampler.catch_up(study)
    told = [(key, metrics) for kind, key, metrics in search.events if kind == "tell"]
    assert [key for key, _ in told] == keys(study)[1:]
    assert all(metrics is not None for _, metrics in told)

    # A new sampler repeats the asking: the trial that was run again asked for nothing.
    fresh = in_order()
    resumed = SearchSampler(fresh)
    study.sampler = resumed
    resumed.catch_up(study)
    assert [k for kind, k, _ in fresh.events if kind == "ask"] == [k for k, _ in told]


# --- random values ---


def frozen(number: int, params: dict[str, Any], distributions: dict[str, Any]) -> FrozenTrial:
    trial = optuna.create_trial(params=params, distributions=distributions, value=0.0)
    trial.number = number
    return trial


def test_first_random_trials_differ_whoever_draws_them() -> None:
    distributions = {
        "a": CategoricalDistribution(("x", "y", "z")),
        "b": IntDistribution(2, 8, step=2),
        "c": FloatDistribution(0.0, 1.0, step=0.5),
    }
    seen = []
    for number in range(3 * 4 * 3):
        params: dict[str, Any] = {}
        for name, d in distributions.items():
            before = {k: distributions[k] for k in params}
            params[name] = draw(7, frozen(number, params, before), name, d)
        seen.append(tuple(params.values()))
    assert len(set(seen)) == len(seen)
    assert seen != sorted(seen)


@pytest.mark.parametrize(
    "distribution",
    [
        IntDistribution(1, 100_000),
        IntDistribution(1, 1000, log=True),
        FloatDistribution(1e-5, 1.0, log=True),
        FloatDistribution(-1.0, 1.0),
        FloatDistribution(0.0, 1000.0, step=0.1),
    ],
)
def test_random_values_lie_inside_and_spread(distribution: Any) -> None:
    values = [draw(0, frozen(n, {}, {}), "x", distribution) for n in range(300)]
    assert all(distribution._contains(distribution.to_internal_repr(v)) for v in values)
    assert len(set(values)) > 100
    middle = sorted(values)[150]
    if distribution.log:
        assert distribution.low * 5 < middle < distribution.high / 5
    else:
        span = distribution.high - distribution.low
        assert abs(middle - (distribution.low + distribution.high) / 2) < 0.15 * span


def test_storage_is_the_only_memory(tmp_path: Path) -> None:
    """Trials that another process finished are told by the next proposal."""
    storage: BaseStorage = JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))
    mine = study_of(SearchSampler(RandomSearch(SPACE, seed=0)), storage=storage, study_name="s")
    other = optuna.load_study(
        study_name="s", storage=storage, sampler=SearchSampler(RandomSearch(SPACE, seed=0))
    )
    for _ in range(4):
        mine.optimize(objective, n_trials=1)
        other.optimize(objective, n_trials=2)
    assert len(set(keys(mine))) == 12
    for study in (mine, other):
        assert isinstance(study.sampler, SearchSampler)
        search = study.sampler.catch_up(study)
        assert isinstance(search, RandomSearch)
        assert len(search.history) == 12
