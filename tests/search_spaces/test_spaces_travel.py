"""What workers send each other: ready spaces, and what holds them, through pickle."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from joblib import Parallel, delayed
from torch import nn

from nni_aiop import evaluators, search
from nni_aiop.cli._names import SEARCHES
from nni_aiop.engines.optuna_pruner import EarlyStoppingPruner
from nni_aiop.engines.optuna_sampler import SearchSampler
from nni_aiop.generators import ParetoGenerator, TrainingOptions
from nni_aiop.graphs import from_module
from nni_aiop.predictors import PREDICTORS, BudgetGrid, make_predictor
from nni_aiop.predictors.graph import load_shipped, load_shipped_ranker
from nni_aiop.search import FlopsReduction, RandomSearch
from nni_aiop.search_spaces import SPACES, get_space
from nni_aiop.spaces import CodeSpace, MutationSpace
from nni_aiop.strategies import FlopsReductionSampler, NCPSampler, PNAGSampler

NAMES = [*SPACES]


def told(space: CodeSpace) -> dict[str, Any]:
    """All that a space works out of some samples."""
    samples = space.sample(3, np.random.default_rng(0))
    codes = torch.as_tensor(space.encode(samples))
    assert space.graph is not None
    features = space.features(codes) if space.features else torch.zeros(0)
    return {
        "codes": codes.tolist(),
        "costs": {name: space.cost(name, codes).tolist() for name in space.costs},
        "features": features.tolist(),
        "graphs": [space.graph(sample).content_hash for sample in samples],
        "keys": [space.network_key(sample) for sample in samples],
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_ready_space_is_the_same_elsewhere(name: str) -> None:
    space = get_space(name)
    assert told(pickle.loads(pickle.dumps(space))) == told(space)


@pytest.mark.slow
def test_and_in_processes_that_are_spawned() -> None:
    spaces = [get_space(name) for name in NAMES]
    with Parallel(n_jobs=2, backend="loky") as pool:
        found = pool(delayed(told)(space) for space in spaces)
    assert found == [told(space) for space in spaces]


@pytest.mark.parametrize("name", sorted({*SEARCHES} - {"reduction"}))
def test_a_search_goes_on_elsewhere(name: str) -> None:
    here = getattr(search, SEARCHES[name])(
        get_space("nasbench201"), objectives=["accuracy"], seed=0
    )
    for place, sample in enumerate(here.ask(4)):
        here.tell(sample, {"accuracy": float(place)})
    there = pickle.loads(pickle.dumps(here))
    assert there.ask(2) == here.ask(2)


@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_on_it_travels(name: str) -> None:
    sampler = NCPSampler(get_space(name), seed=0)
    again = pickle.loads(pickle.dumps(sampler))
    study = optuna.create_study(sampler=again)
    study.optimize(lambda trial: float(len(trial.params)), n_trials=1)


def test_a_predictor_travels() -> None:
    space = get_space("nasbench201")
    codes = space.encode(space.sample(20, np.random.default_rng(0)))
    fit = make_predictor("gp", space).fit(codes, {"y": codes.sum(axis=1)})
    again = pickle.loads(pickle.dumps(fit))
    assert again.predict(codes).mean.tolist() == fit.predict(codes).mean.tolist()


def small_mutations() -> MutationSpace:
    layers = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 8, 3))
    return MutationSpace(from_module(layers, (1, 3, 9, 9)))


def generator() -> ParetoGenerator:
    space = get_space("nasbench201")
    codes = space.encode(space.sample(40, np.random.default_rng(0)))
    grid = BudgetGrid.spread({"flops": space.cost("flops", codes)}, 3)
    few = TrainingOptions(steps=2, samples=4)
    made = ParetoGenerator(space, grid, hidden=8, training=few, evaluator={"steps": 3})
    return made.fit(codes, codes[:, 0])


def reduction() -> FlopsReduction:
    search = FlopsReduction(small_mutations(), budgets=[0.7])
    search.ask(2)
    return search


TRAVELLERS: dict[str, Callable[[], Any]] = {
    "ParetoGenerator": generator,
    "ParetoEvaluator": lambda: generator().evaluator_,
    "MutationSpace": small_mutations,
    "FlopsReduction": reduction,
    "FlopsReductionSampler": lambda: FlopsReductionSampler(small_mutations(), budgets=[0.7]),
    "PNAGSampler": lambda: PNAGSampler(get_space("nasbench201"), cost="flops", seed=0),
    "SearchSampler": lambda: SearchSampler(partial(RandomSearch), get_space("naap"), seed=0),
    "EarlyStoppingPruner": lambda: EarlyStoppingPruner(get_space("naap")),
    "GraphPredictor": load_shipped,
    "CrossSpaceRanker": load_shipped_ranker,
    **{
        name: partial(make_predictor, name, get_space("naap"))
        for name in sorted(PREDICTORS)
    },
}  # fmt: skip


@pytest.mark.parametrize("name", TRAVELLERS)
def test_everything_that_a_worker_sends_travels(name: str) -> None:
    sent = TRAVELLERS[name]()
    assert type(pickle.loads(pickle.dumps(sent))) is type(sent)


def test_evaluators_travel() -> None:
    pytest.importorskip("nni")
    made: dict[str, tuple[Any, ...]] = {
        "DigitsEvaluator": (),
        "SampleEvaluator": ("math:sqrt",),
        "TableEvaluator": ("table.csv",),
        "PredictedEvaluator": ("predictor.safetensors",),
        "GraphPredictorEvaluator": ("predictor.safetensors",),
    }
    for name, arguments in made.items():
        sent = getattr(evaluators, name)(*arguments)
        assert pickle.loads(pickle.dumps(sent)).trace_kwargs == sent.trace_kwargs
