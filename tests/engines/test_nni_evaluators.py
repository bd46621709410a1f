"""Evaluators that answer from the sample: a predictor, a table, a function."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nni", reason="NNI is not installed")

import nni_aiop.measures
from nni_aiop.engines._nni import importing_nni
from nni_aiop.engines.nni_evaluators import _own_sample
from nni_aiop.engines.nni_experiment import run_nni
from nni_aiop.engines.nni_space import code_space_from_nni
from nni_aiop.errors import AiopError, FileFormatError, SpaceError
from nni_aiop.evaluators import PredictedEvaluator, SampleEvaluator, TableEvaluator
from nni_aiop.measures import FunctionMeasure
from nni_aiop.spaces import CodeSpace, Sample
from nni_aiop.strategies import RandomSearch

with importing_nni():
    import nni
    from nni.mutable import CategoricalMultiple
    from nni.nas.execution import SequentialExecutionEngine
    from nni.nas.nn.pytorch import ModelSpace
    from nni.nas.space import SimplifiedModelSpace
    from nni.nas.strategy import Random
    from nni.nas.strategy import RegularizedEvolution as Evolution

    from nni_aiop.search_spaces.nasbench201 import NASBench201Space

HERE = Path(__file__).parent
SPACE = "nni_aiop.search_spaces.nasbench201:code_space"
CELL = dict.fromkeys(("op_01", "op_02", "op_12", "op_03", "op_13", "op_23"), "skip_connect")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HERE))
    import nni_toy

    return nni_toy


def run(space: Any, evaluator: Any, folder: Path, n: int = 5) -> list[Any]:
    return run_nni(space, evaluator, RandomSearch(seed=0), max_trials=n, out_dir=folder)


def write_table(path: Path, toy: Any, rows: list[Sample]) -> Path:
    lines = ["a,b,c,accuracy,latency"]
    lines += [f"{s['a']},{s['b']},{s['c']},{s['a'] / 10},{s['c'] * 2}" for s in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_table_answers_and_what_it_lacks_fails(toy: Any, tmp_path: Path) -> None:
    space = code_space_from_nni(toy.Toy())
    everything = space.from_points(space.enumerate_points())
    known = [s for s in everything if s["b"] != "x"]
    path = write_table(tmp_path / "table.csv", toy, known)
    results = run(toy.Toy, TableEvaluator(str(path)), tmp_path / "out", 20)
    for sample, metrics in results:
        if sample["b"] == "x":
            assert metrics is None
        else:
            accuracy = sample["a"] / 10
            assert metrics == {
                "default": accuracy,
                "accuracy": accuracy,
                "latency": 2.0 * sample["c"],
            }
    assert {m is None for _, m in results} == {True, False}
    assert "must hold the architecture, but lacks" in (tmp_path / "out" / "nni.log").read_text()


def test_a_table_is_read_once(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = code_space_from_nni(toy.Toy())
    path = write_table(tmp_path / "t.csv", toy, space.from_points(space.enumerate_points()))
    read: list[Path] = []

    def load_table(path: Path, space: CodeSpace) -> Any:
        read.append(path)
        return load(path, space)

    load = nni_aiop.measures.load_table
    monkeypatch.setattr(nni_aiop.measures, "load_table", load_table)
    results = run(toy.Toy, TableEvaluator(str(path)), tmp_path / "1")
    assert read == [path]
    # A measure that is there already is taken as it is.
    evaluator = TableEvaluator(str(path))
    evaluator.measure = nni_aiop.measures.TableMeasure(path, space)
    assert run(toy.Toy, evaluator, tmp_path / "2") == results
    assert read == [path] * 2


def test_another_metric_of_a_table(toy: Any, tmp_path: Path) -> None:
    space = code_space_from_nni(toy.Toy())
    path = write_table(tmp_path / "t.csv", toy, space.from_points(space.enumerate_points()))
    (result,) = run(toy.Toy, TableEvaluator(str(path), metric="latency"), tmp_path / "out", 1)
    assert result[1] is not None and result[1]["default"] == 2.0 * result[0]["c"]


def test_a_wrong_file_or_name_is_known_before_the_first_trial(toy: Any, tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", toy, [{"a": 1, "b": "x", "c": 1}])
    for evaluator, error, text in (
        (TableEvaluator(str(path), metric="speed"), AiopError, "must have the metric 'speed'"),
        (TableEvaluator(str(tmp_path / "no.csv")), OSError, r"no\.csv"),
        (PredictedEvaluator(str(path)), FileFormatError, "t.csv"),
        (SampleEvaluator("nni_toy:missing"), AiopError, "must name something importable"),
    ):
        with pytest.raises(error, match=text):
            run(toy.Toy, evaluator, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_published_table(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "nas_bench_201" / "data" / "nas-bench-201" / "trainval.pkl"
    results = run(NASBench201Space, TableEvaluator(str(path)), tmp_path)
    table = TableEvaluator(str(path), space=SPACE)
    for sample, metrics in results:
        assert metrics is not None and metrics["default"] == metrics["Acc"]
        assert table.measure(sample) == metrics


def test_a_predictor_answers(tmp_path: Path) -> None:
    from nni_aiop.predictors import NCPMLP, load_predictor

    space = NASBench201Space().code_space()
    samples = space.sample(30, np.random.default_rng(0))
    codes = space.encode(samples)
    targets = {"accuracy": codes.sum(axis=1) + codes[:, 0], "size": codes[:, 1]}
    path = tmp_path / "predictor.safetensors"
    NCPMLP(space, seed=0, epochs=2).fit(codes, targets).save(path)
    results = run(NASBench201Space, PredictedEvaluator(str(path)), tmp_path / "out")
    predictor = load_predictor(path, space)
    for sample, metrics in results:
        prediction = predictor.predict(space.encode([sample]))
        assert metrics is not None
        assert metrics["default"] == metrics["accuracy"] == pytest.approx(prediction.mean[0, 0])
        assert metrics["size"] == pytest.approx(prediction.mean[0, 1])
        assert metrics["size_std"] == pytest.approx(prediction.std[0, 1])
    by_size = PredictedEvaluator(str(path), metric="size", space=SPACE)
    assert by_size.measure(CELL)["default"] == by_size.measure(CELL)["size"]
    with pytest.raises(AiopError, match="must have the metric 'speed'"):
        PredictedEvaluator(str(path), metric="speed", space=SPACE).measure(CELL)
    with pytest.raises(FileFormatError):
        other = "nni_aiop.search_spaces.digits:code_space"
        PredictedEvaluator(str(path), space=other).measure(CELL)


def test_a_function_of_the_sample(toy: Any, tmp_path: Path) -> None:
    results = run(toy.Toy, SampleEvaluator("nni_toy:score"), tmp_path / "1")
    assert all(m == toy.score(s) for s, m in results)
    assert SampleEvaluator("nni_toy:plus", b=3).measure({"a": 1}) == {"default": 4}
    assert SampleEvaluator("nni_toy:nameless").measure({"a": 1}) == {"score": 1.0}
    with pytest.raises(ValueError, match="must have default, but lacks default: it has score"):
        run(toy.Toy, SampleEvaluator("nni_toy:nameless"), tmp_path / "2")
    assert FunctionMeasure(lambda sample: np.float32(0.5))({}) == {"default": 0.5}
    assert FunctionMeasure(lambda sample: {"a": 10**400, "b": "no"})({}) == {"a": math.inf}
    with pytest.raises(AiopError, match="must return a number or a dict of numbers, but returned"):
        FunctionMeasure(lambda sample: [1.0, 2.0])({})
    with pytest.raises(TypeError, match="must be run by NNI"):
        SampleEvaluator("nni_toy:score").evaluate(None)


class Subsets(ModelSpace):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.add_mutable(CategoricalMultiple(["p", "q", "r"], n_chosen=2, label="two"))
        self.add_mutable(CategoricalMultiple([1, 2, 3], label="any"))


def count(sample: Sample) -> float:
    return float("pqr".index(sample["two"][0]) + 10 * sum(sample["any"]))


def test_models_of_nnis_own_strategies(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They write a subset as booleans, and leave notes of constraints among the labels."""
    monkeypatch.setattr(toy, "count", count, raising=False)
    engine = SequentialExecutionEngine(max_model_count=8)
    evaluator = SampleEvaluator("nni_toy:count")
    space = SimplifiedModelSpace.from_model(Subsets(), evaluator)
    Random()(space, engine)
    Evolution(population_size=4, sample_size=2)(space, SequentialExecutionEngine(max_model_count=8))
    nni.trial._params = None
    assert len(list(engine.list_models())) == 8
    for model in engine.list_models():
        frozen = space.mutables.freeze(model.sample)
        assert model.metric == count({"two": frozen["two"], "any": frozen["any"]})
    booleans = {"two/0": False, "two/1": True, "two/2": True, "two/n": None, "any": [3]}
    codes = evaluator.code_space()
    assert _own_sample(codes, booleans) == {"two": ["q", "r"], "any": [3]}
    with pytest.raises(SpaceError, match="lacks"):
        _own_sample(codes, {"any": [3]})


def test_traced_small_and_loaded_again(tmp_path: Path) -> None:
    """NNI writes the evaluator into every trial: class, paths and scalars, no data."""
    for evaluator in (
        TableEvaluator(str(tmp_path / "t.csv"), metric="x", space=SPACE),
        TableEvaluator(tmp_path / "t.csv"),
        PredictedEvaluator(str(tmp_path / "p.safetensors")),
        SampleEvaluator("nni_toy:score", seed=3),
    ):
        text = nni.dump(evaluator)
        assert len(text) < 500
        again = nni.load(text)  # our own text
        assert type(again).__name__ == type(evaluator).__name__
        assert again.trace_kwargs.keys() == evaluator.trace_kwargs.keys()


def test_without_nni_it_says_how_to_install_it() -> None:
    code = """
import sys
sys.modules["nni"] = None
import nni_aiop.evaluators, nni_aiop.strategies
from nni_aiop.errors import MissingPackageError
from nni_aiop.engines.nni_space import as_code_space, code_space_from_nni

for module, name in (
    (nni_aiop.evaluators, "TableEvaluator"), (nni_aiop.evaluators, "DigitsEvaluator"),
    (nni_aiop.strategies, "NCP"), (nni_aiop.strategies, "NCPTuner"),
):
    try:
        getattr(module, name)
    except MissingPackageError as err:
        print(err)
try:
    code_space_from_nni(object())
except MissingPackageError as err:
    print(err)
print(as_code_space("nni_aiop.search_spaces.nasbench201:code_space").name)
"""
    root = HERE.parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *refusals, name = done.stdout.splitlines()
    assert len(refusals) == 5
    assert all("pip install 'nni-aiop[nni]'" in line for line in refusals)
    assert name == "nasbench201"


def test_unknown_names() -> None:
    import nni_aiop.evaluators

    with pytest.raises(AttributeError, match="no attribute 'Oracle'"):
        _ = nni_aiop.evaluators.Oracle
    assert {"TableEvaluator", "DigitsEvaluator"} <= set(dir(nni_aiop.evaluators))
