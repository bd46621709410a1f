"""Any search as an NNI strategy, on the sequential engine."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import optuna
import pytest

pytest.importorskip("nni", reason="NNI is not installed")

from nni_aiop.engines._nni import importing_nni
from nni_aiop.engines.nni_space import code_space_from_nni
from nni_aiop.engines.optuna_space import sample_of, suggest
from nni_aiop.errors import AiopError, FileFormatError
from nni_aiop.search import NCPSearch, Objective, RandomWarmup
from nni_aiop.spaces import CodeSpace, Ordinal, Sample
from nni_aiop.strategies import (
    NCP,
    PNAG,
    LocalSearch,
    NCPSampler,
    NCPTuner,
    PredictorTopK,
    RandomSearch,
    RegularizedEvolution,
    SearchStrategy,
)

with importing_nni():
    import nni
    from nni.nas.evaluator import Evaluator
    from nni.nas.execution import SequentialExecutionEngine
    from nni.nas.execution.event import ModelEventType
    from nni.nas.space import SimplifiedModelSpace

    from nni_aiop.search_spaces.nasbench201 import NASBench201Space


def load_toy() -> ModuleType:
    path = Path(__file__).parents[1] / "engines" / "nni_toy.py"
    spec = importlib.util.spec_from_file_location("nni_toy", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


toy = load_toy()


def run(
    strategy: SearchStrategy,
    n: int | None = 10,
    *,
    mode: str = "",
    go_on: bool = True,
    evaluator: Any = None,
) -> SearchStrategy:
    engine = SequentialExecutionEngine(max_model_count=n, continue_on_failure=go_on)
    evaluator = evaluator or toy.ToyEvaluator(mode=mode)
    strategy(SimplifiedModelSpace.from_model(toy.Toy(), evaluator), engine)
    return strategy


@pytest.fixture(autouse=True)
def outside_of_trials() -> Any:
    """After a sequential run NNI goes on believing that it is inside a trial."""
    yield
    nni.trial._params = None


class InTurn:
    """Any object with the four methods is a search: this one takes a = 0, 1, ... in turn."""

    def __init__(self, space: CodeSpace, last: int = 9) -> None:
        self.space = space
        self.last = last
        self.told: list[tuple[Sample, Any]] = []
        self.asked = 0

    def ask(self, n: int = 1) -> list[Sample]:
        stop = min(self.asked + n, self.last + 1)
        out = [{"a": a, "b": "x", "c": 1} for a in range(self.asked, stop)]
        self.asked += len(out)
        return out

    def tell(self, sample: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        self.told.append((dict(sample), metrics))

    def state_dict(self) -> dict[str, Any]:
        return {"asked": self.asked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.asked = state["asked"]


@pytest.mark.parametrize(
    "strategy",
    [
        SearchStrategy(InTurn),
        RandomSearch(seed=1),
        RegularizedEvolution(seed=1, population=4, tournament=2),
        LocalSearch(seed=1, initial=2),
        NCP(budget=10, warmup=RandomWarmup(count=6), rounds=2, starts=4, steps=2),
        PredictorTopK(budget=10, warmup=RandomWarmup(count=6)),
        PNAG(
            budget=10,
            warmup=RandomWarmup(count=6),
            rounds=2,
            cost="size",
            pool=20,
            drawn=20,
            evaluator_steps=4,
            generator_steps=2,
        ),
    ],
    ids=lambda s: type(s).__name__,
)
def test_pairs_are_right_and_none_twice(strategy: SearchStrategy) -> None:
    results = run(strategy).results
    assert len(results) == 10
    assert all(m == toy.score(s) for s, m in results)
    assert len({(s["a"], s["b"], s["c"]) for s, _ in results}) == 10


def test_same_seed_same_models() -> None:
    one, two, other = (run(RandomSearch(seed=s)).results for s in (1, 1, 2))
    assert one == two != other


def test_the_end_of_the_space_and_the_own_limit_end_the_run() -> None:
    assert len(run(SearchStrategy(lambda space: InTurn(space, last=3)), None).results) == 4
    assert len(run(RandomSearch(), None).results) == 200
    assert len(run(SearchStrategy(InTurn, max_trials=7), None).results) == 7
    with pytest.raises(ValueError, match="max_trials must be at least 1"):
        RandomSearch(max_trials=0)


def test_failed_and_silent_trials_are_told() -> None:
    for mode in ("fail", "silent"):
        strategy = run(SearchStrategy(InTurn), mode=mode)
        told = strategy.search_.told
        assert [s["a"] for s, _ in told] == list(range(10))
        assert [m is None for _, m in told] == [a % 2 == 1 for a in range(10)]


def test_nan_is_no_result_of_ours() -> None:
    seen: list[Any] = []
    strategy = RandomSearch(seed=0, on_result=lambda s, m: seen.append((s, m)))
    results = run(strategy, mode="nan").results
    assert all((m is None) == (s["a"] % 2 == 1) for s, m in results)
    assert any(m is None for _, m in results)
    assert seen == results


def test_an_exception_of_a_trial_reaches_the_user_where_nni_is_told_to_stop() -> None:
    strategy = SearchStrategy(InTurn)
    with pytest.raises(RuntimeError, match="a is odd"):
        run(strategy, mode="fail", go_on=False)
    assert [m is None for _, m in strategy.search_.told] == [False, True]


@pytest.mark.parametrize("mode", ["numpy", "no_default"])
def test_metrics_that_nni_chokes_on(mode: str) -> None:
    objectives = [Objective("size", "minimize")]
    strategy = run(RandomSearch(objectives=objectives), mode=mode)
    assert len(strategy.results) == 10
    for sample, metrics in strategy.results:
        assert metrics is not None
        assert metrics["size"] == sample["c"]
        assert all(type(v) is float for v in metrics.values())
    sizes = [model.sample["c"] for model in strategy.list_models()]
    assert sizes == sorted(sizes)


def test_list_models_is_ours_sorted_and_complete() -> None:
    strategy = RandomSearch(seed=0)
    with pytest.raises(RuntimeError, match="must have run"):
        next(strategy.list_models())
    run(strategy, mode="fail")
    good = [(s, m) for s, m in strategy.results if m is not None]
    models = list(strategy.list_models())
    assert [m.metric for m in models] == sorted((m["default"] for _, m in good), reverse=True)
    assert all(model.metric == toy.score(model.sample)["default"] for model in models)
    assert len(list(strategy.list_models(limit=2))) == 2
    unsorted = list(strategy.list_models(sort=False))
    assert [m.sample for m in unsorted] == [s for s, _ in strategy.results]
    assert "RandomSearch" in repr(strategy)


def test_list_models_has_those_that_keep_the_target_first() -> None:
    few = {"rounds": 2, "pool": 40, "evaluator_steps": 10, "generator_steps": 3}
    strategy = run(PNAG(targets={"size": 2.0}, budget=12, seed=0, **few), n=12)
    sizes = [model.sample["c"] for model in strategy.list_models()]
    n_kept = sum(size <= 2 for size in sizes)
    assert 0 < n_kept < len(sizes) and max(sizes[:n_kept]) <= 2
    best = strategy.search_.best()
    assert best is not None and best[0] == next(strategy.list_models()).sample


def test_on_result_sees_every_pair_and_its_exception_stops_the_run() -> None:
    seen: list[Any] = []
    run(SearchStrategy(InTurn, on_result=lambda s, m: seen.append((s["a"], m))), mode="fail")
    assert [a for a, _ in seen] == list(range(10))

    def angry(sample: Sample, metrics: dict[str, float] | None) -> None:
        if sample["a"] == 2:
            raise ZeroDivisionError("mine")

    strategy = SearchStrategy(InTurn, on_result=angry)
    with pytest.raises(ZeroDivisionError, match="mine"):
        run(strategy)
    assert [s["a"] for s, _ in strategy.search_.told] == [0, 1, 2]


def test_an_exception_in_tell_stops_the_run() -> None:
    class Deaf(InTurn):
        def tell(self, sample: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
            raise KeyError("deaf")

    with pytest.raises(KeyError, match="deaf"):
        run(SearchStrategy(Deaf))


def test_refused_samples_count_as_failed_until_there_are_too_many() -> None:
    class Wrong(InTurn):
        def ask(self, n: int = 1) -> list[Sample]:
            return [{**s, "b": "q" if s["a"] % 2 else "x"} for s in super().ask(n)]

    strategy = run(SearchStrategy(Wrong), None)
    assert [m is None for _, m in strategy.search_.told] == [a % 2 == 1 for a in range(10)]
    assert [model.sample["a"] for model in strategy.list_models(sort=False)] == [0, 2, 4, 6, 8]

    class AlwaysWrong(InTurn):
        def ask(self, n: int = 1) -> list[Sample]:
            return [{"a": 0, "b": "q", "c": 1}]

    strategy = SearchStrategy(AlwaysWrong)
    with pytest.raises(AiopError, match="refused 100 samples in a row"):
        run(strategy, None)
    assert len(strategy.search_.told) == 100


def test_a_search_that_exists_is_taken_as_it_is() -> None:
    space = CodeSpace([Ordinal("a", range(10)), Ordinal("c", (1, 2, 4, 8, 16))], name="given")
    search = InTurn(space)
    strategy = run(SearchStrategy(search))
    assert strategy.search_ is search
    assert strategy.space_ is space


def test_state_is_plain_json_and_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = run(RandomSearch(seed=3), 12).results
    path = tmp_path / "state.json"
    run(RandomSearch(seed=3, state=path), 5)
    state = json.loads(path.read_text())
    assert len(state["search"]["history"]) == 5
    second = run(RandomSearch(seed=3, state=path, max_trials=12), None)
    assert second.results == whole
    # All is done: a third run evaluates nothing and still knows everything.
    third = run(RandomSearch(seed=3, state=path, max_trials=12), None)
    assert third.results == whole
    assert len(third.engine._history) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_what_was_under_way_is_evaluated_first(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    strategy = RandomSearch(seed=3, state=path)
    space = SimplifiedModelSpace.from_model(toy.Toy(), toy.ToyEvaluator())
    strategy.initialize(space, SequentialExecutionEngine())
    asked = [strategy._ask() for _ in range(3)]  # and the process is killed here
    results = run(RandomSearch(seed=3, state=path), 5).results
    assert [s for s, _ in results[:3]] == asked
    assert len({(s["a"], s["b"], s["c"]) for s, _ in results}) == 5


def test_a_state_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    run(RandomSearch(state=path), 2)
    with pytest.raises(FileFormatError, match="search"):
        run(RegularizedEvolution(state=path))
    for content in ("{", "[]", '{"format": 99, "search": {}}'):
        path.write_text(content)
        with pytest.raises(FileFormatError, match=r"a strategy's state|strategy's state must"):
            run(RandomSearch(state=path))
    for search in ("[]", "null", "7", '"RandomSearch"', "{}"):
        path.write_text(f'{{"format": 1, "search": {search}}}')
        with pytest.raises(FileFormatError):
            run(RandomSearch(state=path))


def test_nnis_own_checkpoint_goes_through_torch(tmp_path: Path) -> None:
    """NNI saves states with torch.save and loads them with the unpickler that refuses classes."""
    from nni.nas.utils.serializer import get_default_serializer

    first = run(NCP(budget=10, seed=0), 4)
    get_default_serializer().save(first.state_dict(), tmp_path / "state.ckpt")
    loaded = get_default_serializer().load(tmp_path / "state.ckpt")
    second = NCP(budget=10, seed=0)
    space = SimplifiedModelSpace.from_model(toy.Toy(), toy.ToyEvaluator())
    second.initialize(space, SequentialExecutionEngine(max_model_count=2))
    second.load_state_dict(loaded)
    second.run()
    assert second.results[:4] == first.results
    assert len(second.results) == 6
    assert NCP().state_dict() == {}


@nni.trace
class Convolutions(Evaluator):  # type: ignore[misc]
    """The number of 3x3 convolutions, and a second metric."""

    def _execute(self, model: Any) -> None:
        operations = list(model.sample.values())
        n = operations.count("nor_conv_3x3")
        nni.report_final_result({"default": n, "skips": operations.count("skip_connect")})


def test_ncp_keeps_limits_and_weighs_several_metrics() -> None:
    space = NASBench201Space()
    codes = space.code_space()
    costs = codes.cost("flops", codes.encode(codes.sample(100, np.random.default_rng(0))))
    limit = float(np.median(costs))
    strategy = NCP(
        budget=16,
        warmup=RandomWarmup(count=8),
        rounds=2,
        starts=4,
        steps=2,
        objectives=["default", Objective("skips", "minimize", 0.5)],
        limits={"flops": limit},
    )
    strategy(
        SimplifiedModelSpace.from_model(space, Convolutions()),
        SequentialExecutionEngine(max_model_count=16),
    )
    assert strategy.space_ is not None and strategy.space_.name == "nasbench201"
    found = [s for s, _ in strategy.results]
    assert len(found) == 16
    assert codes.cost("flops", codes.encode(found)).max() <= limit


@pytest.mark.parametrize("options", [{}, {"objectives": ["default", "size"]}])
def test_every_front_end_has_the_searchs_defaults(options: dict[str, Any]) -> None:
    """NCP, NCPSampler, NCPTuner and NCPSearch, told no more than a budget, are the same search."""
    space = code_space_from_nni(toy.Toy())
    own = NCPSearch(space, budget=40, seed=0, **options)
    for _ in range(14):  # twelve to warm up, and two of the first round
        (sample,) = own.ask(1)
        own.tell(sample, toy.score(sample))
    strategy = NCP(budget=40, seed=0, **options)
    assert run(strategy, 14).results == own.history
    names = options.get("objectives", ["default"])
    # NCPSampler spreads over the Pareto front where there are several objectives, unless told.
    sampler = NCPSampler(space, budget=40, seed=0, weights=[1.0] * len(names))
    study = optuna.create_study(directions=["maximize"] * len(names), sampler=sampler)

    def objective(trial: optuna.Trial) -> list[float]:
        metrics = toy.score(suggest(trial, space))
        return [metrics[name] for name in names]

    study.optimize(objective, n_trials=14)
    assert [sample_of(t, space) for t in study.trials] == [s for s, _ in own.history]
    tuner = NCPTuner(budget=40, seed=0, objectives=dict.fromkeys(names, "maximize"))
    tuner.update_search_space({"a": {"_type": "choice", "_value": [1, 2]}})
    for made in (strategy.search_, tuner.search_, sampler.catch_up(study)):
        assert made._kept == own._kept
        for name in (*own._kept, "seed", "warmup", "limits"):
            assert getattr(made, name) == getattr(own, name), name


def test_callbacks_are_taken_off_the_engine() -> None:
    engine = SequentialExecutionEngine(max_model_count=2)
    RandomSearch()(SimplifiedModelSpace.from_model(toy.Toy(), toy.ToyEvaluator()), engine)
    assert not engine._callbacks[ModelEventType.FinalMetric]
    assert not engine._callbacks[ModelEventType.TrainingEnd]
