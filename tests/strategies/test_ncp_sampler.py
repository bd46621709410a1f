"""NCP as an Optuna sampler."""

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from nni_aiop.engines.optuna_space import sample_of, suggest
from nni_aiop.errors import SpaceError
from nni_aiop.search import NCPSearch, RandomWarmup
from nni_aiop.spaces import CodeSpace, Condition, Nominal, Ordinal
from nni_aiop.strategies import NCPSampler

optuna.logging.set_verbosity(optuna.logging.CRITICAL)

SPACE = CodeSpace(
    [
        Ordinal("depth", range(1, 9)),
        Nominal("op", ("conv", "pool", "skip")),
        Ordinal("width", (8, 16, 24, 32, 48, 64)),
        Ordinal("kernel", (1, 3, 5, 7)),
    ],
    conditions={"kernel": Condition("op", ("conv",))},
    costs={"flops": lambda c: 1 + 7 * c[:, 0] + 8 * c[:, 4]},
)


def merit(sample: dict[str, Any]) -> float:
    """Best: six convolutions of width 48 and kernel 5, at 15.29 flops."""
    score = -abs(sample["depth"] - 6) - abs(sample["width"] - 48) / 8
    return float(score + (4 - abs(sample["kernel"] - 5) if sample["op"] == "conv" else 0))


def objective(trial: Trial) -> float:
    return merit(suggest(trial, SPACE))


def run_objective(trial: Trial) -> float:
    sample: dict[str, Any] = {"depth": trial.suggest_int("depth", 1, 8)}
    sample["op"] = trial.suggest_categorical("op", ["conv", "pool", "skip"])
    sample["width"] = trial.suggest_categorical("width", [8, 16, 24, 32, 48, 64])
    if sample["op"] == "conv":
        sample["kernel"] = trial.suggest_int("kernel", 1, 7, step=2)
    return merit(sample)


def quick(space: Any = None, **options: Any) -> NCPSampler:
    return NCPSampler(
        space, **{"budget": 24, "rounds": 4, "starts": 16, "steps": 8, "seed": 0, **options}
    )


def keys(study: optuna.Study) -> list[str]:
    return [SPACE.key(sample_of(t, SPACE)) for t in study.trials if t.params]


@pytest.mark.parametrize("space", [SPACE, None], ids=["given", "define-by-run"])
def test_it_finds_better_than_chance_and_never_twice(space: CodeSpace | None) -> None:
    study = optuna.create_study(direction="maximize", sampler=quick(space))
    study.optimize(run_objective, n_trials=30)
    assert len(set(keys(study))) == 30
    values = [t.value for t in study.trials]
    assert np.mean(values[-8:]) > np.mean(values[:8]) + 2
    assert study.best_value >= 2.0


@pytest.mark.parametrize("space", [SPACE, None], ids=["given", "define-by-run"])
def test_the_direction_is_the_studys(space: CodeSpace | None) -> None:
    study = optuna.create_study(direction="minimize", sampler=quick(space))
    study.optimize(lambda t: -run_objective(t), n_trials=30)
    assert study.best_value <= -2.0


@pytest.mark.parametrize("space", [SPACE, None], ids=["given", "define-by-run"])
def test_an_interrupted_study_goes_on_the_same(space: CodeSpace | None) -> None:
    whole = optuna.create_study(direction="maximize", sampler=quick(space))
    whole.optimize(run_objective, n_trials=20)
    storage = optuna.storages.InMemoryStorage()
    for part in (7, 6, 7):
        study = optuna.create_study(
            study_name="s",
            storage=storage,
            direction="maximize",
            sampler=quick(space),
            load_if_exists=True,
        )
        study.optimize(run_objective, n_trials=part)
    assert keys(study) == keys(whole)


def test_limits_hold_for_every_proposal() -> None:
    study = optuna.create_study(direction="maximize", sampler=quick(SPACE, limits={"flops": 9.0}))
    study.optimize(objective, n_trials=30)
    codes = SPACE.encode([sample_of(t, SPACE) for t in study.trials])
    assert (SPACE.cost("flops", codes) <= 9.0).all()


def test_a_cost_is_held_down() -> None:
    spent = []
    for lam in (0.0, 3.0):
        study = optuna.create_study(
            direction="maximize", sampler=quick(SPACE, cost="flops", lam=lam)
        )
        study.optimize(objective, n_trials=30)
        late = SPACE.encode([sample_of(t, SPACE) for t in study.trials[10:]])
        spent.append(SPACE.cost("flops", late).mean())
    assert spent[1] < spent[0] - 1


def test_a_cost_may_be_learnt_from_the_trials() -> None:
    def costly(trial: Trial) -> float:
        value = run_objective(trial)
        trial.set_user_attr("metrics", {"latency": float(trial.params["depth"])})
        return value

    study = optuna.create_study(direction="maximize", sampler=quick(None, cost="latency", lam=3.0))
    study.optimize(costly, n_trials=30)
    assert np.mean([t.params["depth"] for t in study.trials[12:]]) < 4


@pytest.mark.parametrize("weights", [None, (1.0, 0.2)])
def test_several_objectives(weights: tuple[float, ...] | None) -> None:
    sampler = quick(SPACE, weights=weights)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(lambda t: (objective(t), float(t.params["width"])), n_trials=26)
    assert len(set(keys(study))) == 26
    search = sampler.catch_up(study)
    assert isinstance(search, NCPSearch)
    assert search.pareto == (weights is None)
    assert [o.weight for o in search.objectives] == list(weights or (1.0, 1.0))
    assert [o.metric for o in search.objectives] == ["objective_0", "objective_1"]
    assert len(study.best_trials) >= 2


def test_metric_names_name_the_objectives() -> None:
    sampler = quick(SPACE)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        study.set_metric_names(["accuracy", "latency"])
    study.optimize(lambda t: (objective(t), 1.0), n_trials=2)
    search = sampler.catch_up(study)
    assert isinstance(search, NCPSearch)
    assert [o.metric for o in search.objectives] == ["accuracy", "latency"]


def test_four_threads_with_failures(tmp_path: Any) -> None:
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "s.journal")))
    study = optuna.create_study(storage=storage, direction="maximize", sampler=quick(SPACE))

    def troubled(trial: Trial) -> float:
        value = objective(trial)
        if trial.number % 5 == 1:
            raise RuntimeError
        if trial.number % 5 == 2:
            raise optuna.TrialPruned
        return float("nan") if trial.number % 5 == 3 else value

    study.optimize(troubled, n_trials=32, n_jobs=4, catch=(RuntimeError,))
    assert len(set(keys(study))) == 32
    states = [t.state for t in study.trials]
    assert states.count(TrialState.PRUNED) == 6
    assert states.count(TrialState.FAIL) == 13


def test_a_study_where_all_fails_stays_random() -> None:
    study = optuna.create_study(direction="maximize", sampler=quick(SPACE))
    study.optimize(lambda t: objective(t) * float("nan"), n_trials=28)
    assert len(set(keys(study))) == 28


def test_it_travels_by_pickle() -> None:
    sampler = pickle.loads(pickle.dumps(quick(None, warmup=RandomWarmup(count=3))))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(run_objective, n_trials=6)
    study.sampler = pickle.loads(pickle.dumps(sampler))
    study.optimize(run_objective, n_trials=3)
    assert len(set(keys(study))) == 9


def test_bad_arguments_get_one_sentence() -> None:
    with pytest.raises(SpaceError, match="limits need a space"):
        NCPSampler(limits={"flops": 1.0})
    with pytest.raises(SpaceError, match="memory"):
        NCPSampler(SPACE, limits={"memory": 1.0})
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        NCPSampler(SPACE, rounds=0)
    study = optuna.create_study(sampler=quick(None, weights=(1.0, 2.0)))
    study.optimize(run_objective, n_trials=1)
    with pytest.raises(ValueError, match="one weight per objective"):
        study.optimize(run_objective, n_trials=1)


def test_strategies_import_lazily() -> None:
    code = (
        "import sys, nni_aiop.strategies as s; assert 'optuna' not in sys.modules; "
        "assert 'NCPSampler' in dir(s); s.NCPSampler; assert 'nni' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
    import nni_aiop.strategies

    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        nni_aiop.strategies.Nothing  # noqa: B018
