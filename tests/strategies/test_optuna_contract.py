"""Optuna's own contract suite of samplers, run over ours."""

from collections.abc import Callable
from functools import partial

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase

from nni_aiop.search import RandomSearch
from nni_aiop.strategies import NCPSampler, PNAGSampler, SearchSampler

optuna.logging.set_verbosity(optuna.logging.ERROR)

SAMPLERS = {
    "ncp": partial(NCPSampler, budget=6, rounds=2, starts=8, steps=3, seed=0),
    "pnag": partial(
        PNAGSampler,
        budget=6,
        rounds=2,
        pool=20,
        drawn=20,
        evaluator_steps=3,
        generator_steps=2,
        seed=0,
    ),
    "random": partial(SearchSampler, RandomSearch, seed=0),
}


class Ours:
    @pytest.fixture(params=SAMPLERS)
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return SAMPLERS[request.param]


class TestBasic(Ours, BasicSamplerTestCase):
    pass


class TestMultiObjective(Ours, MultiObjectiveSamplerTestCase):
    pass
