"""Optuna's sampler of edits that shrink a network: what the search asks for, within budgets."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from torch import nn

from nni_aiop.engines.optuna_space import sample_of, suggest
from nni_aiop.errors import SpaceError
from nni_aiop.graphs import from_module
from nni_aiop.search import FlopsReduction
from nni_aiop.spaces import MutationSpace, Sample
from nni_aiop.strategies import FlopsReductionSampler

optuna.logging.set_verbosity(optuna.logging.ERROR)


@cache
def space() -> MutationSpace:
    sizes = [(3, 32), (32, 32), (32, 48), (48, 64)]
    layers: list[nn.Module] = []
    for before, after in sizes:
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5))
    return MutationSpace(from_module(network, (1, 3, 8, 8)))


def worth(sample: Sample) -> float:
    """More of what a late layer keeps is better."""
    return sum(float(v) * (1 + i) for i, v in enumerate(sample.values()) if isinstance(v, int))


def objective(trial: optuna.Trial) -> float:
    return worth(suggest(trial, space()))


def study_of(
    storage: str | None = None, name: str | None = None, **options: object
) -> optuna.Study:
    sampler = FlopsReductionSampler(space(), seed=0, **options)  # type: ignore[arg-type]
    return optuna.create_study(
        direction="maximize", sampler=sampler, storage=storage, study_name=name, load_if_exists=True
    )


def test_it_proposes_what_the_search_asks_for_within_the_budgets() -> None:
    study = study_of(budgets=[0.8, 0.5], score=worth)
    study.optimize(objective, n_trials=8)
    search = FlopsReduction(space(), budgets=[0.8, 0.5], score=worth, seed=0)
    whole = space().base.macs
    kept = []
    for trial in study.trials:
        (asked,) = search.ask(1)
        search.tell(asked, worth(asked))
        found = sample_of(trial, space())
        assert space().key(found) == space().key(asked)
        kept.append(space().graph_of(found).macs / whole)
    assert all(part <= 0.8 for part in kept)
    assert sum(part <= 0.5 for part in kept) >= 3 and sum(part > 0.5 for part in kept) >= 3
    assert len({space().key(sample_of(t, space())) for t in study.trials}) == 8


def test_it_goes_on_in_a_new_process_s_sampler(tmp_path: Path) -> None:
    whole = study_of()
    whole.optimize(objective, n_trials=6)
    storage = f"sqlite:///{tmp_path}/study.db"
    study_of(storage, "shrink").optimize(objective, n_trials=3)
    later = study_of(storage, "shrink")
    later.optimize(objective, n_trials=3)
    assert [t.params for t in later.trials] == [t.params for t in whole.trials]


def test_a_trial_that_fails_is_left_behind() -> None:
    study = study_of()

    def fails(trial: optuna.Trial) -> float:
        suggest(trial, space())
        raise RuntimeError("mine")

    study.optimize(fails, n_trials=1, catch=(RuntimeError,))
    study.optimize(objective, n_trials=2)
    assert [t.state for t in study.trials] == [TrialState.FAIL, *[TrialState.COMPLETE] * 2]
    assert len({tuple(t.params.items()) for t in study.trials}) == 3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FlopsReductionSampler(space(), budgets=[1.5]), "parts in"),
        (lambda: FlopsReductionSampler(None), "MutationSpace"),  # type: ignore[arg-type]
        (lambda: FlopsReductionSampler(space(), cost="ms"), "ms"),
    ],
)
def test_wrong_arguments_are_told_at_once(make: Callable[[], object], said: str) -> None:
    with pytest.raises((ValueError, SpaceError), match=said):
        make()
