"""Constraints of Optuna's trials are told to the search, which keeps clear of what breaks them."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import optuna
import pytest
from optuna.trial import Trial, TrialState, create_trial

from nni_aiop.engines.optuna_sampler import SearchSampler
from nni_aiop.search import NCPSearch, PNAGSearch, PredictorTopK, RandomSearch
from nni_aiop.spaces import CodeSpace, Ordinal

optuna.logging.set_verbosity(optuna.logging.CRITICAL)

SPACE = CodeSpace([Ordinal(label, range(1, 13)) for label in ("depth", "width", "kernel")])


def constrained(trial: Trial) -> float:
    """More is better and costs more: every optimum lies at the limit of latency and memory."""
    depth, width, kernel = (trial.suggest_int(label, 1, 12) for label in SPACE.labels)
    trial.set_constraint("latency", depth * kernel - 30.0)
    trial.set_constraint("memory", width + depth - 14.0)
    return float(depth + width + kernel)


def infeasible(study: optuna.Study, last: int = 20) -> int:
    return sum(any(v > 0 for v in t.constraints.values()) for t in study.trials[-last:])


class Telling(RandomSearch):
    told: list[tuple[dict[str, Any], Mapping[str, float] | float | None]]

    def tell(self, sample: Any, metrics: Mapping[str, float] | float | None) -> None:
        self.told = [*getattr(self, "told", []), (dict(sample), metrics)]
        super().tell(sample, metrics)


def test_every_constraint_is_told_beside_the_values() -> None:
    sampler = SearchSampler(Telling, SPACE, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(constrained, n_trials=6)
    search = sampler.catch_up(study)
    assert isinstance(search, Telling)
    for trial, (sample, metrics) in zip(study.trials, search.told, strict=True):
        assert sample == trial.params
        assert metrics == {
            "default": trial.value,
            "constraint:latency": trial.constraints["latency"],
            "constraint:memory": trial.constraints["memory"],
        }


def test_the_best_is_one_that_keeps_the_constraints() -> None:
    sampler = SearchSampler(RandomSearch, SPACE, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(constrained, n_trials=30)
    search = sampler.catch_up(study)
    assert isinstance(search, RandomSearch)
    best = search.best()
    assert best is not None
    feasible = [t for t in study.trials if all(v <= 0 for v in t.constraints.values())]
    assert best[1]["default"] == max(t.value or 0.0 for t in feasible)
    assert max(t.value or 0.0 for t in study.trials) > best[1]["default"]
    assert best[1]["default"] == study.best_value


def test_constraints_of_constraints_func_are_told() -> None:
    """The deprecated way: a sampler's function, whose values are numbered."""
    with pytest.warns((FutureWarning, optuna.exceptions.ExperimentalWarning)):
        old = optuna.samplers.TPESampler(
            seed=0, constraints_func=lambda t: (t.params["depth"] - 5,)
        )
    source = optuna.create_study(direction="maximize", sampler=old)
    source.optimize(lambda t: float(sum(t.suggest_int(x, 1, 12) for x in SPACE.labels)), n_trials=5)
    sampler = SearchSampler(Telling, SPACE, seed=0)
    source.sampler = sampler
    search = sampler.catch_up(source)
    assert isinstance(search, Telling)
    told = [metrics for _, metrics in search.told if isinstance(metrics, Mapping)]
    assert [m["constraint:0"] for m in told] == [t.params["depth"] - 5 for t in source.trials]


@pytest.mark.parametrize(
    ("value", "told"),
    [(float("nan"), None), (float("inf"), None), (float("-inf"), 0.0), (2, 2), (-1e300, -1e300)],
)
def test_constraints_that_are_no_finite_numbers(value: float, told: float | None) -> None:
    """NaN, which only a file can hold, and infinity: broken, but not by how much."""
    sampler = SearchSampler(Telling, SPACE, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    source = optuna.create_study(direction="maximize")
    source.optimize(lambda t: float(sum(t.suggest_int(x, 1, 12) for x in SPACE.labels)), n_trials=1)
    trial = source.trials[0]
    study.add_trial(
        create_trial(
            params=trial.params,
            distributions=trial.distributions,
            value=1.0,
            system_attrs={"constraints:c": value},
        )
    )
    search = sampler.catch_up(study)
    assert isinstance(search, Telling)
    ((_, metrics),) = search.told
    assert (metrics["constraint:c"] if isinstance(metrics, Mapping) else metrics) == told


MAKERS: dict[str, Any] = {
    "ncp": partial(NCPSearch, budget=40, rounds=6, starts=32, steps=15),
    "pnag": partial(PNAGSearch, budget=40, rounds=6, evaluator_steps=80, generator_steps=30),
    "top-k": partial(PredictorTopK, budget=40, rounds=6, pool=500),
}


@pytest.mark.parametrize("space", [SPACE, None], ids=["given", "learned"])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_what_breaks_a_constraint_is_avoided(make: Any, space: CodeSpace | None) -> None:
    """None of the last 20 of 40 is infeasible, as with GPSampler; TPE has 5 to 8, chance 14."""
    study = optuna.create_study(direction="maximize", sampler=SearchSampler(make, space, seed=0))
    study.optimize(constrained, n_trials=40)
    assert all(t.state == TrialState.COMPLETE for t in study.trials)
    assert infeasible(study) <= 1
    assert study.best_value >= 25  # of 26


def test_chance_breaks_constraints() -> None:
    """What the searches above do is not in the nature of the objective."""
    study = optuna.create_study(
        direction="maximize", sampler=SearchSampler(RandomSearch, SPACE, seed=0)
    )
    study.optimize(constrained, n_trials=40)
    assert infeasible(study) >= 10
