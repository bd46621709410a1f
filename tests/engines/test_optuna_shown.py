"""What other programs show of a study: names, constraints, and none of the package's own books."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import Trial

from nni_aiop.engines._optuna_shown import constraints_of
from nni_aiop.engines.optuna_experiment import run_optuna
from nni_aiop.engines.optuna_storage import open_storage
from nni_aiop.search import Objective, PNAGSearch, RandomSearch
from nni_aiop.spaces import CodeSpace, Ordinal, Sample
from nni_aiop.strategies import NCPSampler

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def space() -> CodeSpace:
    return CodeSpace([Ordinal("depth", tuple(range(1, 9))), Ordinal("width", (8, 16, 32, 64))])


def measure(sample: Sample) -> dict[str, float]:
    return {"accuracy": sample["depth"] / 8, "ms": float(sample["depth"] * sample["width"])}


def search() -> RandomSearch:
    objectives = [Objective("accuracy"), Objective("ms", "minimize")]
    return RandomSearch(space(), objectives=objectives, seed=0)


def study_in(path: Path) -> optuna.Study:
    storage = open_storage(path)
    assert storage is not None
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)


def test_a_run_names_its_metrics_and_shows_nothing_of_its_own(tmp_path: Path) -> None:
    run_optuna(space(), measure, search(), max_trials=4, storage=tmp_path / "j")
    study = study_in(tmp_path / "j")
    assert study.metric_names == ["accuracy", "ms"]
    assert study.user_attrs == {}
    for trial in study.trials:
        assert list(trial.user_attrs) == ["metrics"] and trial.constraints == {}


def test_a_run_shows_which_results_exceed_a_bound_and_tells_the_search_once(tmp_path: Path) -> None:
    bounded = PNAGSearch(
        space(),
        objectives=[Objective("accuracy")],
        targets={"ms": 100.0},
        budget=6,
        seed=0,
    )
    results = run_optuna(space(), measure, bounded, max_trials=6, storage=tmp_path / "j")
    for trial, (_, metrics) in zip(study_in(tmp_path / "j").trials, results, strict=True):
        assert metrics is not None and metrics.keys() == {"accuracy", "ms"}
        assert trial.system_attrs["constraints"] == [metrics["ms"] - 100.0]
        assert constraints_of(trial) == {}
    assert all(m is not None and len(m) == 2 for _, m in bounded.history)


def test_a_study_of_an_older_version_goes_on(tmp_path: Path) -> None:
    whole = run_optuna(space(), measure, search(), max_trials=6, storage=tmp_path / "whole")
    run_optuna(space(), measure, search(), max_trials=3, storage=tmp_path / "new")
    new = study_in(tmp_path / "new")
    old = optuna.create_study(
        storage=open_storage(tmp_path / "old"), study_name=new.study_name, directions=new.directions
    )
    kept = new._storage.get_study_system_attrs(new._study_id)
    for name in ("nni_aiop:beginning", "nni_aiop:search"):
        old.set_user_attr(name, kept[name])
    for trial in new.trials:
        trial.system_attrs = {k: v for k, v in trial.system_attrs.items() if "worker" not in k}
        trial.user_attrs = {**trial.user_attrs, "worker": "elsewhere:1"}
        old.add_trial(trial)
    again = run_optuna(space(), measure, search(), max_trials=6, storage=tmp_path / "old")
    assert again == whole
    assert study_in(tmp_path / "old").metric_names == ["accuracy", "ms"]


@pytest.mark.parametrize("named", [("memory",), ("memory", "heat"), ("0",)])
def test_a_samplers_named_constraints_are_shown_and_told_once(named: tuple[str, ...]) -> None:
    def objective(trial: Trial) -> float:
        depth = trial.suggest_int("depth", 1, 8)
        for i, name in enumerate(named):
            trial.set_constraint(name, depth - 5 + i)
        return depth

    sampler = NCPSampler(seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=8)
    for trial in study.trials:
        depth = trial.params["depth"]
        expected = {name: depth - 5.0 + i for i, name in enumerate(named)}
        shown = None if named == ("0",) else list(expected.values())
        assert trial.system_attrs.get("constraints") == shown
        assert all(trial.constraints[name] == value for name, value in expected.items())
        assert constraints_of(trial) == expected
    assert study.user_attrs == {} and all(not t.user_attrs for t in study.trials)
    told = sampler.catch_up(study)
    assert told is not None
    names = {k for _, m in told.history for k in m or {} if k.startswith("constraint:")}  # type: ignore[attr-defined]
    assert names == {f"constraint:{name}" for name in named}
