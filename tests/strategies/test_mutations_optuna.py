"""Optuna's samplers on the edits of a network."""

from functools import partial

import optuna
import pytest

from nni_aiop.engines.optuna_space import suggest
from nni_aiop.search import RandomSearch
from nni_aiop.strategies import NCPSampler, PNAGSampler, SearchSampler
from tests.spaces.mutation_spaces import mutations

optuna.logging.set_verbosity(optuna.logging.CRITICAL)

SMALL = {"budget": 12, "rounds": 2, "seed": 0}

SAMPLERS = {
    "random": lambda space, limits: SearchSampler(
        partial(RandomSearch, limits=limits), space, seed=0
    ),
    "ncp": partial(NCPSampler, starts=8, steps=3, **SMALL),
    "pnag": partial(PNAGSampler, pool=20, drawn=20, evaluator_steps=3, generator_steps=2, **SMALL),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_shrinks_a_network_within_its_limit(name: str) -> None:
    space = mutations()
    limit = space.base.macs // 2
    found: list[int] = []

    def objective(trial: optuna.Trial) -> float:
        edited = space.graph(suggest(trial, space))
        found.append(edited.macs)
        return float(edited.parameters)

    study = optuna.create_study(
        direction="maximize", sampler=SAMPLERS[name](space=space, limits={"flops": limit})
    )
    study.optimize(objective, n_trials=12)
    assert len(found) == 12
    assert max(found) <= limit
