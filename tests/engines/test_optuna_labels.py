"""A given space whose labels or values are not those of the objective is told."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.trial import Trial, TrialState

from nni_aiop.engines.optuna_sampler import SearchSampler
from nni_aiop.errors import SpaceError
from nni_aiop.search import RandomSearch
from nni_aiop.spaces import CodeSpace, Continuous, Nominal, Ordinal
from nni_aiop.strategies import NCPSampler

optuna.logging.set_verbosity(optuna.logging.CRITICAL)

SPACE = CodeSpace(
    [
        Nominal("activation", ("relu", "silu", "gelu")),
        Ordinal("width", (8, 16, 32, 64)),
        Continuous("dropout", 0.0, 0.5),
    ],
    name="mlp",
)


def study_with(sampler: Any) -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=sampler)


def typed_wrongly(trial: Trial) -> float:
    return len(trial.suggest_categorical("activatoin", ["relu", "silu"]))


@pytest.mark.parametrize(
    "sampler",
    [
        lambda: NCPSampler(SPACE, budget=8, seed=0),
        lambda: SearchSampler(RandomSearch, SPACE, seed=0),
        lambda: SearchSampler(RandomSearch(SPACE)),
    ],
)
def test_no_shared_label_is_an_error_after_the_first_trial(sampler: Callable[[], Any]) -> None:
    study = study_with(sampler())
    words = "asked for 'activatoin' (did you mean 'activation'?); the space has 'activation'"
    with pytest.raises(SpaceError, match=re.escape(words)):
        study.optimize(typed_wrongly, n_trials=8)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE, TrialState.FAIL]


def test_an_objective_that_is_put_right_goes_on() -> None:
    sampler = SearchSampler(RandomSearch, SPACE, seed=0)
    study = study_with(sampler)
    with pytest.raises(SpaceError):
        study.optimize(typed_wrongly, n_trials=3)
    study.optimize(right, n_trials=3)  # with the same sampler
    study.sampler = SearchSampler(RandomSearch, SPACE, seed=1)
    study.optimize(right, n_trials=3)  # and with another
    assert [t.state for t in study.trials[2:]] == [TrialState.COMPLETE] * 6


def right(trial: Trial) -> float:
    activation = trial.suggest_categorical("activation", ["relu", "silu", "gelu"])
    width = trial.suggest_categorical("width", [8, 16, 32, 64])
    return len(activation) + width * trial.suggest_float("dropout", 0.0, 0.5)


def test_a_space_that_is_right_is_not_warned_of() -> None:
    study = study_with(SearchSampler(RandomSearch, SPACE, seed=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study.optimize(right, n_trials=12)


def test_partly_shared_labels_are_named_once() -> None:
    def partly(trial: Trial) -> float:
        typed_wrongly(trial)
        return float(trial.suggest_categorical("width", [8, 16, 32, 64]))

    study = study_with(SearchSampler(RandomSearch, SPACE, seed=0))
    with pytest.warns(UserWarning) as found:
        study.optimize(partly, n_trials=10)
    (only,) = [str(w.message) for w in found]
    assert "'activatoin' (did you mean 'activation'?) not known to it" in only
    assert "'activation', 'dropout' never asked for so far" in only


def test_labels_that_are_asked_for_beside_some_values_are_no_fault() -> None:
    def conditional(trial: Trial) -> float:
        if trial.suggest_categorical("activation", ["relu", "silu", "gelu"]) == "relu":
            trial.suggest_float("dropout", 0.0, 0.5)
        return float(trial.suggest_categorical("width", [8, 16, 32, 64]))

    study = study_with(SearchSampler(RandomSearch, SPACE, seed=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study.optimize(conditional, n_trials=15)


def test_a_label_that_is_never_asked_for_is_told() -> None:
    def lacking(trial: Trial) -> float:
        activation = trial.suggest_categorical("activation", ["relu", "silu", "gelu"])
        return len(activation) + trial.suggest_categorical("width", [8, 16, 32, 64])

    study = study_with(SearchSampler(RandomSearch, SPACE, seed=0))
    with pytest.warns(UserWarning, match="but 'dropout' never asked for so far") as found:
        study.optimize(lacking, n_trials=12)
    assert len(found) == 1
    assert len({tuple(t.params.items()) for t in study.trials}) == 12


@pytest.mark.parametrize(
    "ask",
    [
        lambda trial: trial.suggest_categorical("activation", ["ReLU", "SiLU"]),
        lambda trial: trial.suggest_int("width", 100, 200),
        lambda trial: trial.suggest_float("dropout", 0.6, 0.9),
        lambda trial: trial.suggest_int("width", 9, 15, step=2),
    ],
)
def test_a_shared_label_without_a_shared_value_is_an_error(ask: Callable[[Trial], Any]) -> None:
    study = study_with(SearchSampler(RandomSearch, SPACE, seed=0))
    with pytest.raises(SpaceError, match="the objective must ask for values of the space"):
        study.optimize(lambda trial: float(ask(trial) is None), n_trials=3)


def test_choices_that_the_space_lacks_are_named_once() -> None:
    def more(trial: Trial) -> float:
        trial.suggest_categorical("width", [8, 16, 32, 64])
        trial.suggest_float("dropout", 0.0, 0.5)
        return len(trial.suggest_categorical("activation", ["relu", "silu", "tanh"]))

    study = study_with(SearchSampler(RandomSearch, SPACE, seed=0))
    with pytest.warns(UserWarning, match="none are proposed") as found:
        study.optimize(more, n_trials=12)
    assert len(found) == 1
    assert "activation" in str(found[0].message)


def test_trials_of_before_and_enqueued_values_are_not_judged() -> None:
    source = study_with(optuna.samplers.RandomSampler(seed=0))
    source.optimize(typed_wrongly, n_trials=4)
    study = study_with(SearchSampler(RandomSearch, SPACE, seed=0))
    study.add_trials(source.trials)
    study.enqueue_trial({"width": 64, "dropout": 0.9})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="Fixed parameter")
        study.optimize(right, n_trials=4)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 8
