"""NNI model spaces under Optuna: define-by-run suggestion, and NCPSampler on them."""

import logging
import warnings
from typing import Any

import optuna
import pytest
from optuna.trial import Trial, TrialState

from nni_aiop.engines.optuna_space import sample_of, suggest_nni
from nni_aiop.strategies import NCPSampler

pytest.importorskip("nni", reason="NNI is not installed")

from nni_aiop.engines._nni import importing_nni
from nni_aiop.engines.nni_space import code_space_from_nni

optuna.logging.set_verbosity(optuna.logging.ERROR)

with importing_nni():
    from nni.nas.hub import pytorch as hub

QUICK = ["NasBench201", "ProxylessNAS", "ShuffleNetSpace", "MobileNetV3Space"]
SLOW = ["NasBench101", "NASNet", "ENAS", "AmoebaNet", "PNAS", "DARTS", "AutoFormer"]


def hub_space(name: str) -> Any:
    logging.getLogger("nni").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(hub, name)()


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_what_is_suggested_freezes_and_is_live(name: str) -> None:
    space = hub_space(name)
    codes = code_space_from_nni(space)
    frozen = 0

    def objective(trial: Trial) -> float:
        nonlocal frozen
        sample = suggest_nni(trial, space)
        assert set(sample) == set(trial.params)
        assert space.contains(dict(sample))
        assert codes.canonical(sample) == sample  # every label is live, and none is missing
        if frozen < 2:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                space.freeze(dict(sample))
            frozen += 1
        return 0.0

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=40 if name == "NasBench101" else 8)
    states = {t.state for t in study.trials}
    assert TrialState.COMPLETE in states
    assert states <= {TrialState.COMPLETE, TrialState.PRUNED}  # a broken constraint is pruned
    assert (TrialState.PRUNED in states) == (name == "NasBench101")
    if name == "MobileNetV3Space":
        sizes = {len(t.params) for t in study.trials}
        assert min(sizes) >= 39
        assert max(sizes) <= 67
        assert len(sizes) > 1


@pytest.mark.parametrize("name", ["NasBench201", "ProxylessNAS"])
def test_ncp_sampler_takes_an_nni_space(name: str) -> None:
    space = hub_space(name)
    codes = code_space_from_nni(space)
    sampler = NCPSampler(space, budget=12, rounds=2, starts=8, steps=3, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda t: float(len(str(suggest_nni(t, space)))), n_trials=14)
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
    found = {codes.key(sample_of(t, codes)) for t in study.trials}
    assert len(found) == 14


def test_ncp_sampler_learns_an_nni_space_by_running_it() -> None:
    space = hub_space("NasBench201")
    sampler = NCPSampler(budget=12, rounds=2, starts=8, steps=3, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda t: float(len(str(suggest_nni(t, space)))), n_trials=14)
    codes = code_space_from_nni(space)
    assert len({codes.key(sample_of(t, codes)) for t in study.trials}) == 14


@pytest.mark.slow
def test_ncp_sampler_keeps_an_nni_spaces_constraints() -> None:
    space = hub_space("NasBench101")
    sampler = NCPSampler(space, budget=8, rounds=2, starts=4, steps=2, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda t: float(len(str(suggest_nni(t, space)))), n_trials=10)
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
