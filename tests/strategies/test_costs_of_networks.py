"""Limits on the networks of an NNI model space and of a define-by-run objective of Optuna."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from torch import nn

from nni_aiop.engines._nni import importing_nni
from nni_aiop.engines.optuna_space import sample_of, suggest
from nni_aiop.errors import SpaceError
from nni_aiop.graphs import ComputeGraph, from_module
from nni_aiop.results import SearchResults
from nni_aiop.search import NCPSearch, Objective, RandomSearch
from nni_aiop.search_spaces import digits
from nni_aiop.spaces import CodeSpace, Ordinal, SampleCost
from nni_aiop.strategies import NCPSampler, PNAGSampler, SearchSampler

optuna.logging.set_verbosity(optuna.logging.CRITICAL)

SMALL: dict[str, Any] = {"budget": 12, "rounds": 2, "starts": 8, "steps": 3}

SMALL_PNAG: dict[str, Any] = {
    "budget": 12,
    "rounds": 2,
    "levels": 2,
    "pool": 30,
    "drawn": 30,
    "evaluator_steps": 3,
    "generator_steps": 2,
}


def build(sample: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = []
    inputs = 64
    for i in range(sample["depth"]):
        layers += [nn.Linear(inputs, sample[f"width_{i}"]), nn.ReLU()]
        inputs = sample[f"width_{i}"]
    return nn.Sequential(*layers, nn.Linear(inputs, 10))


def macs(sample: dict[str, Any]) -> int:
    widths = [64, *(sample[f"width_{i}"] for i in range(sample["depth"])), 10]
    return sum(a * b for a, b in itertools.pairwise(widths))


def graph(sample: Any) -> ComputeGraph:
    return from_module(build(sample), (1, 64))


def ask_for(trial: optuna.Trial) -> dict[str, Any]:
    sample: dict[str, Any] = {"depth": trial.suggest_int("depth", 0, 2)}
    for i in range(sample["depth"]):
        sample[f"width_{i}"] = trial.suggest_int(f"width_{i}", 8, 64, step=8)
    return sample


class TestDefineByRun:
    @pytest.mark.parametrize("how", ["graph", "function", "cost"])
    def test_a_limit_is_kept_as_soon_as_the_space_is_known(self, how: str) -> None:
        asked: list[dict[str, Any]] = []

        def counted(sample: dict[str, Any]) -> int:
            asked.append(dict(sample))
            return macs(sample)

        options: dict[str, Any] = {
            "graph": {"graph": graph},
            "function": {"costs": {"flops": counted}},
            "cost": {"costs": {"flops": SampleCost(counted, initial=8)}},
        }[how]
        sampler = NCPSampler(limits={"flops": 2_000}, seed=0, **options, **SMALL)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        seen: list[int] = []

        def objective(trial: optuna.Trial) -> float:
            seen.append(macs(ask_for(trial)))
            return math.log(seen[-1])

        # What shows the space comes first.
        study.enqueue_trial({"depth": 2, "width_0": 8, "width_1": 8})
        study.enqueue_trial({"depth": 0})
        study.optimize(objective, n_trials=14)
        assert max(seen[2:]) <= 2_000 and len(set(seen[2:])) > 4
        assert len({tuple(sorted(s.items())) for s in asked}) == len(asked)

    def test_pnag_and_any_other_search_have_them_too(self) -> None:
        for sampler in (
            PNAGSampler(limits={"params": 2_100}, graph=graph, seed=0, **SMALL_PNAG),
            SearchSampler(
                lambda space, **o: RandomSearch(space, limits={"params": 2_100}, **o),
                graph=graph,
                seed=0,
            ),
        ):
            study = optuna.create_study(direction="maximize", sampler=sampler)
            study.enqueue_trial({"depth": 2, "width_0": 8, "width_1": 8})
            study.optimize(lambda trial: float(ask_for(trial)["depth"]), n_trials=10)
            for trial in study.trials[1:]:
                assert graph(trial.params).parameters <= 2_100

    def test_a_given_space_gets_them(self) -> None:
        space = CodeSpace([Ordinal("depth", (0, 1)), Ordinal("width_0", (8, 16, 32, 64))])
        sampler = NCPSampler(space, graph=graph, limits={"flops": 1_200}, seed=0, **SMALL)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(lambda trial: float(macs(suggest(trial, space))), n_trials=8)
        samples = [space.complete(sample_of(t, space)) for t in study.trials if t.values]
        assert {macs(s) for s in samples} == {640, 592, 1184}
        assert "flops" not in space.costs

    def test_what_no_cost_is_called_is_told_at_once(self) -> None:
        with pytest.raises(SpaceError, match=r"\(or graph=, costs=\), or one of flops, macs, para"):
            NCPSampler(limits={"ms": 3.0}, graph=graph)
        with pytest.raises(SpaceError, match=r"\(or graph=, costs=\), but got {'flops': 1.0}"):
            PNAGSampler(limits={"flops": 1.0})
        with pytest.raises(SpaceError, match="must be a function of a sample, but got 3"):
            NCPSampler(limits={"ms": 3.0}, costs={"ms": 3})  # type: ignore[dict-item]
        search = RandomSearch(digits.code_space())
        with pytest.raises(ValueError, match="got also the costs flops, macs, params, peak_memory"):
            SearchSampler(search, graph=graph)


class TestNni:
    @pytest.fixture(autouse=True)
    def _nni(self) -> None:
        pytest.importorskip("nni")

    @pytest.fixture
    def user_space(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
        with importing_nni():
            from user_space import UserSpace

        return UserSpace

    def test_a_model_space_has_the_costs_of_its_frozen_networks(self, user_space: Any) -> None:
        from nni_aiop.engines.nni_space import code_space_from_nni

        space = code_space_from_nni(user_space(), example=(1, 64))
        assert space.fingerprint == code_space_from_nni(user_space()).fingerprint
        codes = space.encode_points(space.enumerate_points())
        for name in ("flops", "params", "peak_memory"):
            found = space.cost(name, codes)
            for sample, cost in zip(space.decode(codes), found, strict=True):
                graph = from_module(user_space().freeze(sample), (1, 64))
                exact = {
                    "flops": graph.macs,
                    "params": graph.parameters,
                    "peak_memory": graph.peak_memory(),
                }
                assert cost == exact[name]

    def test_an_example_that_does_not_fit_is_told_when_the_search_is_made(
        self, user_space: Any
    ) -> None:
        from nni_aiop.engines.nni_space import code_space_from_nni

        space = code_space_from_nni(user_space(), example=(1, 63))
        refused = pytest.raises(SpaceError, match=r"'flops' of UserSpace must be .*GraphErr")
        with pytest.warns(UserWarning, match="GraphError"), refused:
            NCPSearch(space, limits={"flops": 1e5})

    def test_a_space_that_draws_graphs_has_them_already(self) -> None:
        from nni_aiop.engines.nni_space import code_space_from_nni
        from nni_aiop.search_spaces.digits import DigitsSpace

        space = code_space_from_nni(DigitsSpace(), costs={"ops": lambda s: 1 + s["depth_1"]})
        assert [*space.costs] == ["flops", "params", "ops", "macs", "peak_memory"]
        with pytest.raises(SpaceError, match="draws the graphs of its networks by itself"):
            code_space_from_nni(DigitsSpace(), example=(1, 1, 8, 8))

    def test_choices_of_the_evaluator_leave_the_networks_costs_alone(self) -> None:
        import nni
        from nni.mutable import Numerical
        from nni.nas.evaluator import MutableEvaluator
        from nni.nas.space import SimplifiedModelSpace

        from nni_aiop.engines.nni_space import code_space_from_nni
        from nni_aiop.search_spaces.digits import DigitsSpace

        @nni.trace
        class Tunable(MutableEvaluator):  # type: ignore[misc]
            def __init__(self, lr: float) -> None:
                self.lr = lr

        evaluator = Tunable(lr=Numerical(0.0, 1.0, label="lr"))
        space = code_space_from_nni(SimplifiedModelSpace.from_model(DigitsSpace(), evaluator))
        own = digits.code_space()
        sample = own.complete({"depth_1": 1})
        code = space.encode([{**sample, "lr": 0.3}])
        for name in ("flops", "params", "peak_memory"):
            assert space.cost(name, code) == own.cost(name, own.encode([sample]))

    @pytest.mark.parametrize("strategy", ["NCP", "RandomSearch"])
    def test_a_strategy_keeps_a_limit(
        self, user_space: Any, strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from nni_aiop import strategies
        from nni_aiop.engines.nni_evaluators import SampleEvaluator
        from nni_aiop.engines.nni_experiment import run_nni

        (tmp_path / "width_alone.py").write_text("def score(sample):\n    return sample['width']\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        chosen = getattr(strategies, strategy)(
            limits={"flops": 3_000, "slots": 2},
            example=(1, 64),
            costs={"slots": lambda sample: 1 + sample["depth"]},
            seed=0,
            **(SMALL if strategy == "NCP" else {}),
        )
        run_nni(
            user_space,
            SampleEvaluator("width_alone:score"),
            chosen,
            max_trials=8,
            out_dir=tmp_path / "out",
        )
        assert len(chosen.results) >= 5
        for sample, _ in chosen.results:
            assert sample["depth"] <= 1
            assert from_module(user_space().freeze(sample), (1, 64)).macs <= 3_000
        results = SearchResults(
            chosen.space_, chosen.results, (Objective("default"),), limits={"flops": 3_000}
        )
        assert [*results.costs] == ["slots", "flops"]  # given, or asked for
        assert results.feasible.all() and results.costs["flops"].max() <= 3_000
