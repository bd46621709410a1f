"""The space of a define-by-run objective, learnt from its trials."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.trial import Trial

from nni_aiop.engines._optuna_learner import SpaceLearner
from nni_aiop.spaces import CodeSpace, Condition, Continuous, Ordinal

optuna.logging.set_verbosity(optuna.logging.ERROR)


def learnt(objective: Callable[[Trial], Any], n_trials: int = 40) -> tuple[CodeSpace, int]:
    """The space, and after how many trials it was known."""

    def run(trial: Trial) -> float:
        objective(trial)
        return 0.0

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(run, n_trials=n_trials)
    learner = SpaceLearner()
    last = max(i for i, t in enumerate(study.trials) if learner.add(t))
    assert learner.space is not None
    return learner.space, last


def nested(trial: Trial) -> None:
    if trial.suggest_categorical("op", ["conv", "pool", "skip"]) == "conv":
        trial.suggest_int("kernel", 3, 7, step=2)
        if trial.suggest_categorical("norm", [True, False]):
            trial.suggest_float("momentum", 0.0, 1.0)
    trial.suggest_int("width", 8, 64, log=True)


def test_nested_conditions_are_found() -> None:
    space, last = learnt(nested)
    assert space.conditions == {
        "kernel": (Condition("op", ("conv",)),),
        "norm": (Condition("op", ("conv",)),),
        "momentum": (Condition("norm", (True,)),),
    }
    # Parents before children, and what was suggested between them in between.
    assert space.labels == ("op", "kernel", "norm", "momentum", "width")
    assert last < 15


def test_a_depth_switches_layers_on() -> None:
    def objective(trial: Trial) -> None:
        for i in range(trial.suggest_int("depth", 1, 3)):
            trial.suggest_int(f"width_{i}", 8, 64, step=8)

    space, _ = learnt(objective)
    assert space.conditions == {
        "width_1": (Condition("depth", (2, 3)),),
        "width_2": (Condition("depth", (3,)),),
    }


def test_two_parents_may_decide_together() -> None:
    def objective(trial: Trial) -> None:
        a = trial.suggest_categorical("a", [True, False])
        b = trial.suggest_categorical("b", ["x", "y"])
        if a and b == "x":
            trial.suggest_int("c", 0, 9)

    space, _ = learnt(objective)
    assert set(space.conditions["c"]) == {Condition("a", (True,)), Condition("b", ("x",))}


def test_a_disjunction_is_never_called_absent_where_it_was_present() -> None:
    def objective(trial: Trial) -> None:
        a = trial.suggest_categorical("a", ["x", "y"])
        b = trial.suggest_categorical("b", ["x", "y"])
        if a == "x" or b == "x":
            trial.suggest_int("c", 0, 9)

    space, _ = learnt(objective)
    for a, b in (("x", "x"), ("x", "y"), ("y", "x")):
        assert "c" in space.canonical({"a": a, "b": b})


def test_a_wrong_guess_is_corrected() -> None:
    """Two trials cannot tell which of two differences decides."""

    def trial(op: str, k: str, **more: int) -> optuna.trial.FrozenTrial:
        choices = optuna.distributions.CategoricalDistribution
        distributions: dict[str, Any] = {"op": choices(("a", "b")), "k": choices(("x", "y"))}
        distributions |= {name: optuna.distributions.IntDistribution(0, 9) for name in more}
        return optuna.create_trial(
            params={"op": op, "k": k, **more}, distributions=distributions, value=0.0
        )

    learner = SpaceLearner()
    assert learner.add(trial("a", "x", z=1))
    assert learner.add(trial("b", "y"))
    assert not learner.add(trial("b", "y"))
    learner.add(trial("a", "y", z=2))
    learner.add(trial("b", "x"))
    assert learner.space is not None
    assert learner.space.conditions == {"z": (Condition("op", ("a",)),)}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 10, None), (5, 20, None), Continuous("x", 0.0, 20.0)),
        ((0, 1, 0.5), (1, 2, 0.5), Ordinal("x", (0.0, 0.5, 1.0, 1.5, 2.0), scale="linear")),
        ((0, 1, 0.5), (0.25, 1.25, 0.5), Continuous("x", 0.0, 1.25)),
    ],
)
def test_ranges_that_change_are_united(first: Any, second: Any, expected: Any) -> None:
    def objective(trial: Trial) -> None:
        low, high, step = first if trial.number % 2 else second
        trial.suggest_float("x", low, high, step=step)

    space, last = learnt(objective)
    assert space.dimensions == (expected,)
    assert last == 1


def test_integer_ranges_that_change_are_united() -> None:
    def objective(trial: Trial) -> None:
        low, high, step = (0, 8, 4) if trial.number % 2 else (2, 12, 2)
        trial.suggest_int("x", low, high, step=step)

    space, _ = learnt(objective)
    assert space.dimensions == (Ordinal("x", range(0, 13, 2), scale="linear"),)


def test_no_parameters_no_space() -> None:
    learner = SpaceLearner()
    assert not learner.add(optuna.create_trial(value=1.0))
    assert learner.space is None
