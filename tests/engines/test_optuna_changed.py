"""Studies whose objective changes on the way, or gets other values than were proposed to it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import optuna
import pytest
from optuna.samplers import PartialFixedSampler, RandomSampler
from optuna.trial import Trial, TrialState

from nni_aiop.engines.optuna_sampler import SearchSampler
from nni_aiop.search import NCPSearch, RandomSearch
from nni_aiop.spaces import CodeSpace, Nominal, Ordinal

optuna.logging.set_verbosity(optuna.logging.CRITICAL)
pytestmark = pytest.mark.filterwarnings("ignore:labels of", "ignore:the objective should ask for")

CHANGE = 10  # trials before the objective changes
AFTER = 30
OPS = ("conv", "pool", "skip", "gate", "sum")

quick_ncp = partial(NCPSearch, budget=40, rounds=4, starts=16, steps=8)


def common(trial: Trial) -> float:
    """40 architectures, the best at (conv, 5)."""
    op = trial.suggest_categorical("op", OPS)
    return -OPS.index(op) - abs(trial.suggest_int("depth", 1, 8) - 5)


def near(trial: Trial, label: str) -> float:
    return -abs(trial.suggest_int(label, 0, 9) - 4) / 3


def dropped(trial: Trial) -> float:
    early = near(trial, "groups") if trial.number < CHANGE else 0.0
    return common(trial) + early


def dropped_in_front(trial: Trial) -> float:
    if trial.number < CHANGE:
        trial.suggest_float("rate", 0.0, 1.0)
    return common(trial)


def two_dropped(trial: Trial) -> float:
    early = near(trial, "groups") + near(trial, "width") if trial.number < CHANGE else 0.0
    return common(trial) + early


def renamed(trial: Trial) -> float:
    return common(trial) + near(trial, "groups" if trial.number < CHANGE else "n_groups")


def replaced(trial: Trial) -> float:
    late = trial.number >= CHANGE
    return common(trial) + (trial.suggest_float("bias", 0, 1) if late else near(trial, "groups"))


def added(trial: Trial) -> float:
    return common(trial) - (trial.suggest_int("norm", 0, 1) if trial.number >= CHANGE else 0)


def narrowed(trial: Trial) -> float:
    op = trial.suggest_categorical("op", OPS)
    high = 100 if trial.number < CHANGE else 8
    return -OPS.index(op) - abs(trial.suggest_int("depth", 1, high) - 5)


def widened(trial: Trial) -> float:
    op = trial.suggest_categorical("op", OPS)
    high = 3 if trial.number < CHANGE else 8
    return -OPS.index(op) - abs(trial.suggest_int("depth", 1, high) - 5)


def finer(trial: Trial) -> float:
    step = 0.1 if trial.number < CHANGE else 0.025
    return -abs(trial.suggest_float("rate", 0.0, 1.0, step=step) - 0.4)


def condition_appears(trial: Trial) -> float:
    op = trial.suggest_categorical("op", OPS)
    value = -OPS.index(op) - trial.suggest_int("norm", 0, 2)
    if trial.number < CHANGE or op in OPS[:2]:
        value -= abs(trial.suggest_int("depth", 1, 12) - 5)
    return value


def condition_vanishes(trial: Trial) -> float:
    op = trial.suggest_categorical("op", OPS)
    value = -OPS.index(op)
    if trial.number >= CHANGE or op in OPS[:2]:
        value -= abs(trial.suggest_int("depth", 1, 12) - 5)
    return value


def nested(trial: Trial) -> float:
    widths = [1]
    for i in range(3):
        widths.append(trial.suggest_int(f"s{i}", widths[-1], 6))
    return -abs(widths[1] - 2) - abs(widths[2] - 3) - abs(widths[3] - 5)


def nested_below(trial: Trial) -> float:
    widths = [6]
    for i in range(3):
        widths.append(trial.suggest_int(f"s{i}", 0, widths[-1]))
    return -abs(widths[1] - 4) - abs(widths[2] - 3) - abs(widths[3] - 2)


def wide_log(trial: Trial) -> float:
    return -abs(trial.suggest_int("units", 1, 2**20, log=True) - 3)


def coarse(trial: Trial) -> float:
    """Steps that the space below does not have."""
    depth = trial.suggest_int("depth", 1, 97, step=4)
    return -abs(depth - 40) - abs(trial.suggest_float("rate", 0.0, 1.0, step=0.25) - 0.5)


SPACE = CodeSpace(
    [
        Nominal("op", OPS),
        Ordinal("depth", range(1, 13)),
        Ordinal("groups", range(10)),
        Ordinal("norm", range(3)),
        *(Ordinal(f"s{i}", range(7)) for i in range(3)),
    ]
)
FINE = CodeSpace([Ordinal("depth", range(1, 101)), Ordinal("rate", [i / 100 for i in range(101)])])
KINDS: list[tuple[Callable[[Trial], float], CodeSpace | None]] = [
    (dropped, SPACE),
    (dropped_in_front, SPACE),
    (two_dropped, SPACE),
    (renamed, SPACE),
    (replaced, SPACE),
    (added, SPACE),
    (narrowed, CodeSpace([Nominal("op", OPS), Ordinal("depth", range(1, 101))])),
    (widened, CodeSpace([Nominal("op", OPS), Ordinal("depth", range(1, 21))])),
    (finer, None),
    (condition_appears, SPACE),
    (condition_vanishes, SPACE),
    (nested, SPACE),
    (nested_below, SPACE),
    (wide_log, None),
    (coarse, FINE),
]
CASES = [(run, None) for run, _ in KINDS] + [(run, s) for run, s in KINDS if s is not None]
NAMES = [f"{run.__name__}-{'learned' if space is None else 'given'}" for run, space in CASES]


def study_with(sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=sampler)


def distinct(study: optuna.Study, since: int = CHANGE) -> int:
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
    return len({tuple(sorted(t.params.items())) for t in study.trials[since:]})


def distinct_by_chance(run: Callable[[Trial], float]) -> float:
    counts = []
    for seed in range(5):
        study = study_with(RandomSampler(seed=seed))
        study.optimize(run, n_trials=CHANGE + AFTER)
        counts.append(distinct(study))
    return sum(counts) / len(counts)


@pytest.mark.parametrize(("run", "space"), CASES, ids=NAMES)
def test_a_changed_study_has_as_many_distinct_points_as_chance(
    run: Callable[[Trial], float], space: CodeSpace | None
) -> None:
    wanted = distinct_by_chance(run)
    for make in (quick_ncp, RandomSearch):
        study = study_with(SearchSampler(make, space, seed=0))
        study.optimize(run, n_trials=CHANGE + AFTER)
        # A trial may repeat before the change is noticed.
        assert distinct(study) >= wanted - 1


def plain(trial: Trial) -> float:
    return common(trial) + near(trial, "groups")


@pytest.mark.parametrize("space", [None, SPACE], ids=["learned", "given"])
@pytest.mark.parametrize("fixed", [{"groups": 4}, {"depth": 3}, {"op": "gate", "groups": 0}])
@pytest.mark.parametrize("make", [quick_ncp, RandomSearch])
def test_a_value_that_another_sampler_fixes_leaves_no_repeats(
    make: Any, fixed: dict[str, Any], space: CodeSpace | None
) -> None:
    inner = SearchSampler(make, space, seed=0)
    study = study_with(inner)
    study.optimize(plain, n_trials=5)
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        study.sampler = PartialFixedSampler(fixed, inner)
    study.optimize(plain, n_trials=7)
    assert all(t.params.items() >= fixed.items() for t in study.trials[5:])
    assert distinct(study, since=5) == 7
    # Once it is fixed no longer, it is the search's again.
    study.sampler = inner
    study.optimize(plain, n_trials=8)
    assert distinct(study, since=0) == 20
    for label, value in fixed.items():
        assert {t.params[label] for t in study.trials[-7:]} != {value}


class Fixing(optuna.samplers.BaseSampler):
    """Fixes values as `PartialFixedSampler` does, but nobody knows of it."""

    def __init__(self, fixed: dict[str, Any], inner: SearchSampler) -> None:
        self.fixed, self.inner = fixed, inner

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        if name in self.fixed:
            return self.fixed[name]
        return self.inner.sample_independent(study, trial, name, distribution)


@pytest.mark.parametrize("space", [None, SPACE], ids=["learned", "given"])
def test_a_value_that_an_unknown_sampler_fixes_is_noticed(space: CodeSpace | None) -> None:
    study = study_with(Fixing({"groups": 7}, SearchSampler(quick_ncp, space, seed=0)))
    study.optimize(plain, n_trials=20)
    assert distinct(study, since=1) == 19


@pytest.mark.parametrize("space", [None, SPACE], ids=["learned", "given"])
@pytest.mark.parametrize("seed", range(3))
def test_samplers_that_fix_values_may_be_nested(seed: int, space: CodeSpace | None) -> None:
    sampler: Any = SearchSampler(RandomSearch, space, seed=seed)
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        for fixed in ({"groups": 7, "op": "sum"}, {"op": "gate"}):
            sampler = PartialFixedSampler(fixed, sampler)
    study = study_with(sampler)
    study.optimize(plain, n_trials=8)  # as many as there are depths
    assert {t.params["op"] for t in study.trials} == {"gate"}
    assert distinct(study, since=0) == 8


def test_a_rest_that_a_fixed_value_exhausts_repeats() -> None:
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        sampler = PartialFixedSampler(
            {"op": "conv", "depth": 2}, SearchSampler(RandomSearch, SPACE, seed=0)
        )
    study = study_with(sampler)
    study.optimize(plain, n_trials=12)
    assert distinct(study, since=0) == 10


@pytest.mark.parametrize("space", [None, SPACE], ids=["learned", "given"])
def test_enqueued_values_that_are_asked_for_last_leave_no_repeats(space: CodeSpace | None) -> None:
    study = study_with(SearchSampler(quick_ncp, space, seed=0))
    for i in range(20):
        study.enqueue_trial({"groups": 3} if i % 2 else {"groups": 99, "depth": 2})
    with pytest.warns(UserWarning, match="out of range"):
        study.optimize(plain, n_trials=25)
    assert [t.params["groups"] for t in study.trials[1:20:2]] == [3] * 10
    assert {t.params["depth"] for t in study.trials[:20:2]} == {2}  # what is legal is kept
    # Beside groups=99 and depth=2 the op alone is left, which the space knows nothing of.
    others = [t for t in study.trials if t.params["groups"] != 99]
    assert len({tuple(t.params.items()) for t in others}) == len(others)


@pytest.mark.parametrize("run", [dropped, narrowed, nested, wide_log, condition_appears, plain])
def test_two_workers_have_as_many_distinct_points_as_chance(run: Callable[[Trial], float]) -> None:
    wanted = distinct_by_chance(run)
    study = study_with(SearchSampler(quick_ncp, None, seed=0))
    study.optimize(run, n_trials=CHANGE + AFTER, n_jobs=2)
    assert distinct(study) >= wanted


@pytest.mark.parametrize("run", [dropped, nested, wide_log, condition_appears])
@pytest.mark.parametrize("space", [None, SPACE], ids=["learned", "given"])
def test_a_changed_study_that_is_interrupted_goes_on_the_same(
    run: Callable[[Trial], float], space: CodeSpace | None
) -> None:
    if run is wide_log and space is not None:
        pytest.skip("the space has no such label")
    whole = study_with(SearchSampler(RandomSearch, space, seed=3))
    whole.optimize(run, n_trials=24)
    storage = optuna.storages.InMemoryStorage()
    for part in (5, 7, 6, 6):
        study = optuna.create_study(
            study_name="s",
            storage=storage,
            direction="maximize",
            sampler=SearchSampler(RandomSearch, space, seed=3),
            load_if_exists=True,
        )
        study.optimize(run, n_trials=part)
    assert [t.params for t in study.trials] == [t.params for t in whole.trials]


def late_mixed(trial: Trial) -> float:
    """A float without steps beside categories, first seen late."""
    late = trial.suggest_float("rate", 0.0, 1.0) if trial.number >= CHANGE else 0.0
    return common(trial) - abs(late - 0.3)


def test_a_float_that_appears_late_is_searched() -> None:
    study = study_with(SearchSampler(quick_ncp, None, seed=0))
    study.optimize(late_mixed, n_trials=CHANGE + AFTER)
    assert distinct(study) == AFTER
    assert len({t.params["rate"] for t in study.trials[CHANGE:]}) >= AFTER // 2


def test_what_was_evaluated_before_the_change_may_be_evaluated_again() -> None:
    """Four architectures are all there is; after the change each of them is another one."""

    def small(trial: Trial) -> float:
        value = trial.suggest_int("a", 0, 1) + trial.suggest_int("b", 0, 1)
        return value - (trial.suggest_int("c", 0, 4) if trial.number >= 6 else 0)

    study = study_with(SearchSampler(RandomSearch, None, seed=0))
    study.optimize(small, n_trials=26)
    assert len({tuple(t.params.items()) for t in study.trials[6:]}) >= 18
