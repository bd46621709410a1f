"""Graph predictors answer for searches on NNI and Optuna, without weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("nni", reason="NNI is not installed")
pytest.importorskip("optuna", reason="Optuna is not installed")

import optuna

from nni_aiop.engines._nni import importing_nni
from nni_aiop.engines.nni_experiment import run_nni
from nni_aiop.errors import AiopError, SpaceError
from nni_aiop.evaluators import GraphPredictorEvaluator, graph_objective
from nni_aiop.graphs import from_module
from nni_aiop.measures import GraphMeasure
from nni_aiop.predictors.graph import GraphPredictor
from nni_aiop.search_spaces import get_space
from nni_aiop.spaces import CodeSpace
from nni_aiop.strategies import RandomSearch

with importing_nni():
    from nni.nas.nn.pytorch import LayerChoice, ModelSpace
    from torch import nn

    from nni_aiop.search_spaces.nasbench201 import NASBench201Space


class Undrawn(ModelSpace):  # type: ignore[misc]
    """A space whose code space draws no graphs."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Conv2d(3, 8, 3, padding=1)
        self.block = LayerChoice([first, nn.Conv2d(3, 8, 1)], label="block")

    def forward(self, x: Any) -> Any:
        return self.block(x)


@pytest.fixture(scope="module")
def space() -> CodeSpace:
    return get_space("nasbench201")


@pytest.fixture(scope="module")
def files(space: CodeSpace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A predictor of two metrics and an adapter."""
    assert space.graph is not None
    graphs = [space.graph(s) for s in space.sample(12, np.random.default_rng(0))]
    y = np.array([graph.flops for graph in graphs], np.float64) / 1e6
    folder = tmp_path_factory.mktemp("predictor")
    options = {"hidden": 8, "layers": 2}
    predictor = GraphPredictor(epochs=1, encoder_options=options)
    predictor.fit(graphs, {"accuracy": y, "speed": -y}).save(folder / "predictor.safetensors")
    predictor.adapt("other", graphs, y).save_adapter("other", folder / "other.safetensors")
    return folder / "predictor.safetensors", folder / "other.safetensors"


def test_nni_asks_the_predictor(
    space: CodeSpace, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = files

    def built(*_: Any, **__: Any) -> None:
        raise AssertionError("a network was built")

    import nni.nas.space

    monkeypatch.setattr(nni.nas.space.SimplifiedModelSpace, "executable_model", built)
    evaluator = GraphPredictorEvaluator(str(path), metric="speed")
    search = RandomSearch(seed=0)
    results = run_nni(NASBench201Space, evaluator, search, max_trials=3, out_dir=tmp_path)
    measure = GraphMeasure(path, space, metric="speed")
    assert len(results) == 3
    for sample, metrics in results:
        assert metrics == measure(sample)
        assert set(metrics) == {"default", "accuracy", "accuracy_std", "speed", "speed_std"}
        assert metrics["default"] == metrics["speed"]


def test_a_space_that_draws_no_graphs_is_read_on_the_meta_device(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nni_aiop.graphs

    devices = []

    def read(module: nn.Module, *shapes: Any) -> Any:
        devices.extend(p.device.type for p in module.parameters())
        return from_module(module, *shapes)

    monkeypatch.setattr(nni_aiop.graphs, "from_module", read, raising=False)
    path, adapter = files
    evaluator = GraphPredictorEvaluator(str(path), str(adapter), input_shape=(1, 3, 16, 16))
    results = run_nni(Undrawn, evaluator, RandomSearch(seed=0), max_trials=2, out_dir=tmp_path)
    measure = GraphMeasure(path, adapter=adapter)
    convolutions = {"0": nn.Conv2d(3, 8, 3, padding=1), "1": nn.Conv2d(3, 8, 1)}
    for sample, metrics in results:
        graph = from_module(convolutions[str(sample["block"])], (1, 3, 16, 16))
        assert metrics is not None
        assert metrics == pytest.approx(measure.of_graph(graph))
        assert metrics["default"] == metrics["other"]
    assert set(devices) == {"meta"}


def test_wrong_arguments_are_told_before_the_first_trial(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    path, _ = files
    for space, options, error, text in (
        (Undrawn, {}, SpaceError, "must draw the graphs"),
        (NASBench201Space, {"metric": "size"}, AiopError, "must have the metric 'size'"),
        (NASBench201Space, {"adapter": tmp_path / "no"}, OSError, "no"),
    ):
        evaluator = GraphPredictorEvaluator(str(path), **options)
        with pytest.raises(error, match=text):
            run_nni(space, evaluator, RandomSearch(), max_trials=1, out_dir=tmp_path / "out")


def test_optuna_asks_the_predictor(space: CodeSpace, files: tuple[Path, Path]) -> None:
    path, adapter = files
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(graph_objective(space, path, adapter=adapter), n_trials=4)
    measure = GraphMeasure(path, space, adapter=adapter)
    for trial in study.trials:
        metrics = measure(space.complete(trial.params))
        assert trial.value == metrics["default"] == metrics["other"]
        assert trial.user_attrs["metrics"] == metrics


def test_a_few_shot_predictor_answers(space: CodeSpace, files: tuple[Path, Path]) -> None:
    from nni_aiop.predictors.graph import load_graph_predictor

    assert space.graph is not None
    samples = space.sample(6, np.random.default_rng(1))
    graphs = [space.graph(sample) for sample in samples]
    few = load_graph_predictor(files[0]).few_shot(graphs, np.arange(6.0), metric="points")
    found = GraphMeasure(few, space)(samples[0])
    assert found["default"] == found["points"] == few.predict(graphs[:1]).mean[0, 0]
    with pytest.raises(SpaceError, match="a space that draws graphs"):
        GraphMeasure(few)(samples[0])
