"""Options of samplers, strategies, tuners, pruners and assessors are checked when they are made."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from nni_aiop.engines.nni_assessor import _OPTIONS as ASSESSOR_OPTIONS
from nni_aiop.predictors.tabular import EarlyStopping
from nni_aiop.search import (
    BaseSearch,
    NCPSearch,
    Objective,
    PNAGSearch,
    PredictorTopK,
    RandomSearch,
    RandomWarmup,
    RegularizedEvolution,
)
from nni_aiop.search import FlopsReduction as FlopsReductionSearch
from nni_aiop.search._options import check_options, options_of
from nni_aiop.spaces import CodeSpace, Ordinal
from nni_aiop.strategies import (
    NCP,
    PNAG,
    EarlyStoppingAssessor,
    EarlyStoppingPruner,
    FlopsReduction,
    NCPSampler,
    NCPTuner,
    PNAGSampler,
    SearchSampler,
    SearchStrategy,
)
from nni_aiop.strategies import PredictorTopK as TopKStrategy
from nni_aiop.strategies import RegularizedEvolution as EvolutionStrategy

SPACE = CodeSpace([Ordinal("depth", (1, 2, 3))])


@pytest.mark.parametrize(
    "make",
    [
        NCPSampler,
        partial(NCPSampler, SPACE),
        NCP,
        NCPTuner,
        lambda **o: SearchSampler(partial(NCPSearch, **o)),
        lambda **o: SearchSampler(partial(partial(NCPSearch, budget=9), **o), SPACE),
        lambda **o: SearchStrategy(partial(NCPSearch, **o)),
    ],
    ids=["sampler", "given", "strategy", "tuner", "factory", "partials", "search-strategy"],
)
def test_ncp_options_are_checked_when_they_are_given(make: Callable[..., Any]) -> None:
    make(budget=30, rounds=3, starts=8, steps=2, lr=0.1, lam=0, exploration=1)
    for options, error, words in [
        ({"rouns": 3}, TypeError, "got 'rouns' (did you mean 'rounds'?)"),
        ({"foo": 1}, TypeError, "must be one of"),
        ({"budget": 0}, ValueError, "at least 1"),
        ({"budget": "x"}, TypeError, "budget must be a"),
        ({"steps": None}, TypeError, "steps must be a"),
        ({"rounds": True}, TypeError, "rounds must be a"),
        ({"lam": "much"}, TypeError, "lam must be a number"),
    ]:
        with pytest.raises(error, match=re.escape(words)):
            make(**options)


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (PNAGSampler, {"levls": 3}, "did you mean 'levels'?"),
        (PNAG, {"pool": 0}, "pool"),
        (PNAG, {"targets": {"flops": "many"}}, "targets of flops must be finite numbers"),
        (PNAGSampler, {"targets": 3}, "targets must be bounds"),
        (TopKStrategy, {"pol": 3}, "did you mean 'pool'?"),
        (EvolutionStrategy, {"population": 3, "tournament": 9}, "1 <= tournament <= population"),
        (EvolutionStrategy, {"budget": 9}, "an option of RegularizedEvolution"),
        (NCP, {"warmup": 3}, "warmup must be a RandomWarmup"),
        (NCP, {"predictor": "gp"}, "a predictor must be a function"),
        (NCP, {"pareto": "yes"}, "pareto must be True or False"),
        (NCP, {"limits": 3}, "limits must be bounds"),
        (NCP, {"limits": {"flops": -1}}, "must be a positive number"),
        (FlopsReduction, {"budgets": [1.5]}, "budgets must be parts in (0, 1]"),
        (FlopsReduction, {"cost": "speed"}, "must have the cost, but got 'speed'"),
        (FlopsReduction, {"budgts": [0.5]}, "did you mean 'budgets'?"),
        (NCP, {"seed": "x"}, "seed must be a whole number"),
        (NCP, {"objectives": "accuracy"}, "objectives must be a list"),
        (NCP, {"max_trials": "x"}, "max_trials must be at least 1"),
        (NCP, {"on_result": 3}, "on_result must be a function"),
        (NCPSampler, {"weights": "12"}, "weights must be positive numbers"),
        (NCPSampler, {"weights": (1.0, -1.0)}, "weight must be positive"),
        (NCPSampler, {"pareto": 1}, "pareto must be"),
        (NCPSampler, {"space": "digits"}, "a space must be a CodeSpace"),
        (NCPTuner, {"optimize_mode": "maximise"}, "did you mean 'maximize'?"),
        (NCPTuner, {"objectives": "accuracy"}, "objectives must be directions"),
        (NCPTuner, {"warmup": 30}, "warmup must be a share"),
        (SearchStrategy, {"search": "ncp"}, "a search, or what makes one"),
        (SearchSampler, {"search": "ncp"}, "a search, or what makes one"),
        (EarlyStoppingPruner, {"space": "digits"}, "a space must be a CodeSpace"),
        (EarlyStoppingPruner, {"scheme": 3}, "a scheme must be a function"),
        (EarlyStoppingPruner, {"confidense": 0.9}, "did you mean 'confidence'?"),
        (EarlyStoppingPruner, {"startup": "x"}, "startup must be a whole number"),
        (EarlyStoppingAssessor, {"confidense": 0.9}, "did you mean 'confidence'?"),
        (EarlyStoppingAssessor, {"confidence": 95}, "confidence must be a number that lies in"),
        (EarlyStoppingAssessor, {"startup": "x"}, "startup must be a"),
        (EarlyStoppingAssessor, {"optimize_mode": "up"}, "must be maximize or minimize"),
    ],
)
def test_wrong_options_are_one_sentence(
    make: Callable[..., Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(words)):
        make(**options)


@pytest.mark.parametrize(
    "search",
    [
        NCPSearch,
        PNAGSearch,
        PredictorTopK,
        RandomSearch,
        RegularizedEvolution,
        FlopsReductionSearch,
    ],
)
def test_what_a_search_has_by_default_is_admitted(search: type[BaseSearch]) -> None:
    known = options_of(search)
    assert {"objectives", "limits", "seed"} <= known.keys()
    check_options(search, known)
    assert known.get("warmup", RandomWarmup()) == RandomWarmup()


def test_a_users_own_search_is_not_made_before_its_space_is_known() -> None:
    class Own(RandomSearch):
        def __init__(self, space: CodeSpace, *, label: str, **options: Any) -> None:
            super().__init__(space, **options)
            space.points([{label: 1}])

    SearchSampler(partial(Own, label="depth"), SPACE)
    SearchSampler(lambda space, **options: Own(space, label="depth", **options))
    with pytest.raises(TypeError, match=r"got 'lable' \(did you mean 'label'\?\)"):
        SearchSampler(partial(Own, lable="depth"), SPACE)


def test_an_assessor_knows_the_options_of_its_rule() -> None:
    assert options_of(EarlyStopping).keys() - {"direction"} == ASSESSOR_OPTIONS.keys()


@pytest.mark.parametrize("objectives", ["accuracy", Objective("accuracy"), [3]])
def test_objectives_are_a_list_of_names(objectives: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        RandomSearch(SPACE, objectives=objectives)
