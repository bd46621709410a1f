"""The pruner that predicts where a trial will end."""

from __future__ import annotations

import pickle

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from nni_aiop.spaces import CodeSpace, Ordinal
from nni_aiop.strategies import EarlyStoppingPruner

EPOCHS = 6
optuna.logging.set_verbosity(optuna.logging.WARNING)


def objective(trial: optuna.Trial, sign: float = 1.0, ask_first: bool = False) -> float:
    x = trial.suggest_int("x", 0, 200)
    final = x / 200 + 0.01 * np.sin(50 * x)
    if ask_first and trial.should_prune():
        raise optuna.TrialPruned
    for epoch in range(1, EPOCHS + 1):
        trial.report(sign * final * (1 - 0.5**epoch), epoch)
        trial.set_user_attr("epochs", epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return sign * final


def study(
    pruner: optuna.pruners.BasePruner, direction: str = "maximize", **options: float
) -> optuna.Study:
    made = optuna.create_study(
        direction=direction, sampler=optuna.samplers.RandomSampler(seed=0), pruner=pruner
    )
    made.optimize(lambda trial: objective(trial, **options), n_trials=40)
    return made


def epochs(made: optuna.Study) -> int:
    return sum(t.user_attrs.get("epochs", 0) for t in made.trials)


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1.0), ("minimize", -1.0)])
def test_the_same_best_for_fewer_epochs(direction: str, sign: float) -> None:
    everything = study(optuna.pruners.NopPruner(), direction, sign=sign)
    pruned = study(EarlyStoppingPruner(), direction, sign=sign)
    assert pruned.best_params == everything.best_params
    states = [t.state for t in pruned.trials]
    assert states[:10] == [TrialState.COMPLETE] * 10 and TrialState.PRUNED in states
    assert epochs(pruned) < 0.6 * epochs(everything)


def test_the_scheme_spares_the_first_epoch() -> None:
    space = CodeSpace([Ordinal("x", range(201))])
    with_space = study(EarlyStoppingPruner(space, min_epochs=0), ask_first=True)
    alone = study(EarlyStoppingPruner())
    assert with_space.best_params == alone.best_params
    assert epochs(with_space) < epochs(alone)
    made = study(
        EarlyStoppingPruner(scheme=lambda t: [t.params["x"]], min_epochs=0), ask_first=True
    )
    assert made.best_params == alone.best_params and epochs(made) < epochs(alone)


def test_a_study_goes_on_with_another_pruner() -> None:
    first = study(EarlyStoppingPruner())
    pruner = pickle.loads(pickle.dumps(first.pruner))
    again = optuna.create_study(direction="maximize", pruner=pruner)
    again.add_trials(first.trials)
    again.enqueue_trial({"x": 20})
    again.optimize(objective, n_trials=1)
    assert again.trials[-1].state is TrialState.PRUNED
    # Other studies have other rules.
    other = optuna.create_study(direction="minimize", pruner=pruner)
    other.optimize(objective, n_trials=3)
    assert {t.state for t in other.trials} == {TrialState.COMPLETE}


def test_nan_goes_on_and_teaches_nothing() -> None:
    made = study(EarlyStoppingPruner())

    def diverging(trial: optuna.Trial) -> float:
        trial.suggest_int("x", 0, 200)
        trial.report(float("nan"), 1)
        assert not trial.should_prune()
        return 0.0

    made.optimize(diverging, n_trials=1)
    made.enqueue_trial({"x": 10})
    made.optimize(objective, n_trials=1)
    assert made.trials[-1].state is TrialState.PRUNED


def test_wrong_arguments_are_told_at_once() -> None:
    with pytest.raises(ValueError, match="confidence must lie in"):
        EarlyStoppingPruner(confidence=2.0)
    with pytest.raises(ValueError, match="but got both"):
        EarlyStoppingPruner(CodeSpace([Ordinal("x", (1, 2))]), scheme=lambda t: [0.0])


@pytest.mark.filterwarnings("always")
def test_a_trial_outside_the_space_is_pruned_by_its_reports() -> None:
    """The space has even numbers only; every other trial lies outside."""
    space = CodeSpace([Ordinal("x", range(0, 201, 2))])
    with pytest.warns(UserWarning, match="must lie in the space of its pruner") as caught:
        made = study(EarlyStoppingPruner(space))
    assert len([w for w in caught if "of its pruner" in str(w.message)]) == 1
    outside = [t for t in made.trials if t.params["x"] % 2]
    assert {t.state for t in outside} == {TrialState.COMPLETE, TrialState.PRUNED}
    alone = study(EarlyStoppingPruner())
    assert made.best_params == alone.best_params
    assert epochs(made) < 0.75 * epochs(study(optuna.pruners.NopPruner()))


@pytest.mark.parametrize("far", [1e300, -1e300, 1.7976931348623157e308])
def test_a_trial_that_diverged_does_not_end_the_pruning(far: float) -> None:
    def diverging(trial: optuna.Trial) -> float:
        if trial.number == 3:
            for epoch in range(1, EPOCHS + 1):
                trial.report(far, epoch)
            return far
        return objective(trial)

    made = optuna.create_study(
        direction="minimize" if far > 0 else "maximize",
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=EarlyStoppingPruner(),
    )
    made.optimize(diverging, n_trials=40)
    assert TrialState.PRUNED in [t.state for t in made.trials]
    assert np.isfinite(made.best_value)
