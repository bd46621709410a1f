"""PNAG as an Optuna sampler and by itself: budgets kept, fronts, one search."""

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import Trial
from sklearn.exceptions import NotFittedError

from nni_aiop.engines.optuna_space import sample_of, suggest
from nni_aiop.errors import FileFormatError, InfeasibleError, SpaceError
from nni_aiop.search import Objective, PNAGSearch
from nni_aiop.spaces import CodeSpace, Nominal, Ordinal
from nni_aiop.strategies import PNAGSampler

optuna.logging.set_verbosity(optuna.logging.CRITICAL)

SPACE = CodeSpace(
    [
        Ordinal("depth", range(1, 9)),
        Nominal("op", ("conv", "pool", "skip")),
        Ordinal("width", (8, 16, 24, 32, 48, 64)),
    ],
    costs={"flops": lambda c: 1 + 7 * c[:, 0] + 8 * c[:, 4]},
)
QUICK: dict[str, Any] = {
    "budget": 14,
    "rounds": 2,
    "levels": 3,
    "pool": 60,
    "drawn": 60,
    "evaluator_steps": 20,
    "generator_steps": 5,
}


def merit(sample: dict[str, Any]) -> float:
    return float(sample["depth"] + sample["width"] / 8 + (sample["op"] == "conv"))


def latency(sample: dict[str, Any]) -> float:
    return float(sample["depth"] * sample["width"])


def test_a_study_with_a_budget_never_exceeds_it() -> None:
    study = optuna.create_study(
        direction="maximize", sampler=PNAGSampler(SPACE, limits={"flops": 6.0}, seed=0, **QUICK)
    )
    study.optimize(lambda trial: merit(suggest(trial, SPACE)), n_trials=14)
    samples = [sample_of(t, SPACE) for t in study.trials]
    assert (SPACE.cost("flops", SPACE.encode(samples)) <= 6.0).all()
    assert len({SPACE.key(s) for s in samples}) == 14


def test_a_study_of_two_objectives_is_spread_over_their_front() -> None:
    def objectives(trial: Trial) -> tuple[float, float]:
        sample = suggest(trial, SPACE)
        return merit(sample), latency(sample)

    sampler = PNAGSampler(SPACE, seed=0, **QUICK)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objectives, n_trials=14)
    search = sampler.search
    assert isinstance(search, PNAGSearch)
    assert search.budgeted == ("objective_1",)
    assert search.generator_ is not None and search.generator_.grid.k == 3


def test_the_search_alone_and_the_sampler_propose_the_same() -> None:
    search = PNAGSearch(SPACE, cost="flops", seed=5, **QUICK)
    alone = []
    for _ in range(12):
        (sample,) = search.ask(1)
        search.tell(sample, {"default": merit(sample)})
        alone.append(SPACE.key(sample))
    study = optuna.create_study(
        direction="maximize", sampler=PNAGSampler(SPACE, cost="flops", seed=5, **QUICK)
    )
    study.optimize(lambda trial: merit(suggest(trial, SPACE)), n_trials=12)
    assert [SPACE.key(sample_of(t, SPACE)) for t in study.trials] == alone


def test_what_is_budgeted() -> None:
    both = ("default", Objective("ms", "minimize"))
    assert PNAGSearch(SPACE).budgeted == ()
    assert PNAGSearch(SPACE, objectives=both).budgeted == ("ms",)
    assert PNAGSearch(SPACE, objectives=both, cost="flops").budgeted == ("flops",)
    assert PNAGSearch(SPACE, targets={"ms": 3.0, "flops": 6.0}).budgeted == ("ms", "flops")
    assert PNAGSearch(SPACE, limits={"flops": 6.0}).budgeted == ("flops",)
    errors = (Objective("error", "minimize"), Objective("ms", "minimize"))
    assert PNAGSearch(SPACE, objectives=errors).budgeted == ("ms",)


def test_a_target_that_is_told_is_searched_for() -> None:
    search = PNAGSearch(SPACE, targets={"ms": 100.0}, seed=0, **(QUICK | {"budget": 24}))
    for _ in range(24):
        (sample,) = search.ask(1)
        search.tell(sample, {"default": merit(sample), "ms": latency(sample)})
    proposed = [metrics["ms"] for _, metrics in search.history[8:] if metrics is not None]
    assert sum(ms <= 110 for ms in proposed) >= len(proposed) * 0.6


def test_several_targets_are_each_kept_by_a_proposal_of_every_round() -> None:
    search = PNAGSearch(SPACE, targets={"flops": (3.0, 8.0)}, seed=0, **QUICK)
    for _ in range(14):
        (sample,) = search.ask(1)
        search.tell(sample, {"default": merit(sample)})
    samples = [sample for sample, _ in search.history]
    spent = SPACE.cost("flops", SPACE.encode(samples))
    assert (spent[4:] <= 8.0).all() and (spent[4:] <= 3.0).sum() >= 2
    with pytest.raises(ValueError, match="as many bounds"):
        PNAGSearch(SPACE, targets={"flops": (3.0, 8.0), "ms": 1.0})


def test_wrong_arguments_are_told_at_once() -> None:
    with pytest.raises(SpaceError, match="limits need a space"):
        PNAGSampler(limits={"flops": 1.0})
    with pytest.raises(SpaceError, match="it has: flops"):
        PNAGSampler(SPACE, limits={"ms": 1.0})
    with pytest.raises(ValueError, match="at least 1"):
        PNAGSampler(SPACE, levels=0)


@pytest.mark.parametrize(
    "cost",
    [
        lambda c: c[:, 0] * 0,
        lambda c: (c[:, 0] - 0.9).clamp_min(0),
        lambda c: -1 - c[:, 0],
        lambda c: (c[:, 0] < 0.5) / (c[:, 0] < 0.5) * (1 + c[:, 0]),  # NaN for the deeper half
    ],
    ids=["zero", "mostly zero", "negative", "partly unknown"],
)
@pytest.mark.parametrize("limit", [None, 1.2])
def test_any_exact_cost_can_have_a_budget(cost, limit: float | None) -> None:
    space = CodeSpace(SPACE.dimensions, costs={"x": cost})
    asked: dict[str, Any] = {"cost": "x"} if limit is None else {"limits": {"x": limit}}
    search = PNAGSearch(space, seed=0, **asked, **QUICK)
    for _ in range(14):
        (sample,) = search.ask(1)
        search.tell(sample, {"default": merit(sample)})
    if limit is not None:
        spent = space.cost("x", space.encode([sample for sample, _ in search.history]))
        assert (spent <= limit).all()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"flops": -3.0}, "positive number"),
        ({"flops": [3.0, float("nan")]}, "finite numbers"),
        ({"ms": float("inf")}, "finite numbers"),
        ({"ms": []}, "finite numbers"),
        ({"ms": "low"}, "finite numbers"),
        (5, "by the names of costs"),
        ({"default": 3.0}, "an objective must be left"),
    ],
)
def test_targets_that_nothing_can_keep_are_told_at_once(target, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PNAGSearch(SPACE, targets=target)


@pytest.mark.parametrize(
    "wrong",
    [
        {"levels": "5"},
        {"targets": [1]},
        {"targets": {"flops": [0.0]}},
        {"pool": -1},
        {"drawn": None},
        {"cost": 5},
        {"rounds": 0},
    ],
)
def test_a_state_with_wrong_options_is_refused_and_changes_nothing(wrong: dict[str, Any]) -> None:
    search = PNAGSearch(SPACE, seed=0, **QUICK)
    search.ask(2)
    before = search.state_dict()
    state = {**before, "options": before["options"] | wrong, "round": 7}
    with pytest.raises(FileFormatError, match="complete"):
        search.load_state_dict(state)
    assert search.state_dict() == before


def test_a_dimension_of_a_million_values_is_searched_in_bins() -> None:
    space = CodeSpace(
        [Ordinal("units", range(1, 1_000_001)), Nominal("op", ("conv", "pool"))],
        costs={"flops": lambda c: 1 + c[:, 0]},
    )
    assert space.vocabulary == (33, 3)
    samples = space.sample(50, np.random.default_rng(0))
    tokens = space.tokens(samples)
    assert (space.tokens(space.from_tokens(tokens)) == tokens).all()
    search = PNAGSearch(space, cost="flops", seed=0, **QUICK)
    for _ in range(14):
        (sample,) = search.ask(1)
        search.tell(sample, {"default": float(sample["units"])})


def test_the_best_is_the_best_of_those_that_keep_the_target() -> None:
    search = PNAGSearch(SPACE, targets={"flops": 4.0}, seed=0, **QUICK)
    for depth, width in ((8, 64), (1, 8), (2, 16)):
        sample = {"depth": depth, "op": "conv", "width": width}
        search.tell(sample, {"default": merit(sample)})
    best = search.best()
    assert best is not None and best[0]["depth"] == 2
    told = PNAGSearch(SPACE, targets={"ms": (20.0, 40.0)}, seed=0, **QUICK)
    for depth, width in ((8, 64), (2, 16), (1, 8)):
        sample = {"depth": depth, "op": "conv", "width": width}
        told.tell(sample, {"default": merit(sample), "ms": latency(sample)})
    best = told.best()
    assert best is not None and best[0]["depth"] == 2


def test_a_target_that_nothing_keeps_is_told_before_anything_is_evaluated() -> None:
    search = PNAGSearch(SPACE, targets={"flops": 0.5}, **QUICK)
    with pytest.raises(InfeasibleError, match=r"the cheapest, depth=1, .* has flops = 1\."):
        search.ask(1)


def test_a_cost_that_is_not_told_is_an_error() -> None:
    search = PNAGSearch(SPACE, targets={"watts": 5.0}, seed=0, **QUICK)
    (sample,) = search.ask(1)
    with pytest.raises(ValueError, match="must have default, watts, but lacks watts: it has def"):
        search.tell(sample, {"default": merit(sample)})
    assert search.pending() == [sample]


def test_a_told_cost_is_generated_for_in_its_own_unit(tmp_path: Path) -> None:
    search = PNAGSearch(SPACE, targets={"ms": 100.0}, seed=0, **(QUICK | {"budget": 24}))
    with pytest.raises(NotFittedError):
        search.generate(100.0)
    for _ in range(24):
        (sample,) = search.ask(1)
        search.tell(sample, {"default": merit(sample), "ms": latency(sample)})
    small, large = (search.generate({"ms": ms}, 5) for ms in (80.0, 250.0))
    assert sum(map(latency, small)) < sum(map(latency, large))
    assert search.generate(80.0, 5) == small
    assert search.generator_ is not None
    with pytest.raises(SpaceError, match="ms was learned by a search"):
        search.generator_.save(tmp_path / "g.safetensors")
