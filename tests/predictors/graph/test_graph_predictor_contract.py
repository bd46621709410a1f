"""What a graph predictor must do, with either encoder, alone, with adapters, and transferred."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from nni_aiop.errors import FileFormatError
from nni_aiop.graphs import ComputeGraph
from nni_aiop.predictors import Prediction
from nni_aiop.predictors.graph import (
    ENCODERS,
    FewShotPredictor,
    GraphPredictor,
    GraphSet,
    TransferredPredictor,
    load_graph_predictor,
)
from nni_aiop.search_spaces import get_space

Graphs = list[ComputeGraph]
QUICK: dict[str, dict[str, Any]] = {
    "default": {"epochs": 12, "encoder_options": {"hidden": 16, "layers": 2}},
    "published": {"epochs": 12, "learning_rate": 5e-3},
}


def sampled(n: int, seed: int = 0) -> Graphs:
    space = get_space("digits")
    return [space.graph(sample) for sample in space.sample(n, np.random.default_rng(seed))]


def measured(graphs: Graphs, seed: int = 0) -> dict[str, np.ndarray]:
    """Two metrics of networks with a little noise, of very different units."""
    signal = np.log10([graph.macs for graph in graphs])
    noise = np.random.default_rng(seed).normal(size=(2, len(graphs)))
    return {"accuracy": 70 + 5 * signal + 0.1 * noise[0], "latency": 1e-3 * (2**signal + noise[1])}


def reordered(graph: ComputeGraph, seed: int = 1) -> ComputeGraph:
    """The same graph with its nodes in a random topological order."""
    generator = np.random.default_rng(seed)
    order: list[int] = []
    while len(order) < len(graph):
        ready = [
            place
            for place, sources in enumerate(graph.inputs)
            if place not in order and set(sources) <= set(order)
        ]
        order.append(int(generator.choice(ready)))
    place = {old: new for new, old in enumerate(order)}
    return ComputeGraph(
        [graph.nodes[old] for old in order],
        [[place[source] for source in graph.inputs[old]] for old in order],
    )


@pytest.fixture(scope="module")
def graphs() -> Graphs:
    return sampled(60)


@pytest.fixture(scope="module", params=ENCODERS)
def make(request: pytest.FixtureRequest) -> Callable[..., GraphPredictor]:
    """From options to an unfitted predictor."""
    return lambda **options: GraphPredictor(request.param, **(QUICK[request.param] | options))


@pytest.fixture(scope="module")
def fitted(make: Callable[..., GraphPredictor], graphs: Graphs) -> GraphPredictor:
    y = measured(graphs)
    predictor = make().fit(graphs, y)
    predictor.adapt("up", graphs[:40], y["accuracy"][:40])
    return predictor.adapt("down", graphs[20:], -y["latency"][20:])


TRANSFERS: dict[str, Callable[..., TransferredPredictor]] = {
    "transfer": lambda p, *args: p.transfer(*args, adapters=["up", "down"]),
    "weighted": lambda p, *args: p.transfer(*args, adapters=["up", "down"], weights="fitted"),
    "backbone": lambda p, *args: p.transfer(*args),
    "fine_tune": lambda p, *args: p.fine_tune(*args, adapters=["up"], epochs=5),
    "fine_tune_backbone": lambda p, *args: p.fine_tune(*args, epochs=5),
    "rescale": lambda p, *args: p.rescale(*args, adapters=["up", "down"]),
    "ridge": lambda p, *args: p.few_shot(*args, head="ridge"),
    "gp": lambda p, *args: p.few_shot(*args, head="gp", adapters=["up"]),
}


@pytest.fixture(params=["backbone", "adapter", *(f"transferred by {name}" for name in TRANSFERS)])
def predict(
    request: pytest.FixtureRequest, fitted: GraphPredictor, graphs: Graphs
) -> Callable[[Any], Prediction]:
    """Each way to predict."""
    if request.param == "backbone":
        return fitted.predict
    if request.param == "adapter":
        return lambda graphs: fitted.predict(graphs, adapters=["up"])
    few = graphs[:20]
    name = request.param.removeprefix("transferred by ")
    return TRANSFERS[name](fitted, few, measured(few)["accuracy"]).predict


def close(a: Prediction, b: Prediction) -> None:
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-4)
    np.testing.assert_allclose(a.std, b.std, rtol=1e-3)


class TestEveryPrediction:
    def test_has_a_row_a_graph(self, predict: Callable[[Any], Prediction]) -> None:
        prediction = predict(sampled(9, 5))
        assert prediction.mean.shape == prediction.std.shape == (9, len(prediction.metrics))
        assert np.isfinite(prediction.mean).all() and (prediction.std > 0).all()
        assert predict([]).mean.shape == (0, len(prediction.metrics))

    def test_order_of_nodes_does_not_matter(self, predict: Callable[[Any], Prediction]) -> None:
        graphs = sampled(6, 5)
        close(predict([reordered(graph) for graph in graphs]), predict(graphs))

    def test_batch_equals_one_by_one(self, predict: Callable[[Any], Prediction]) -> None:
        graphs = sampled(5, 5)
        batch = predict(graphs)
        for i, graph in enumerate(graphs):
            row = Prediction(batch.mean[i : i + 1], batch.std[i : i + 1], batch.metrics)
            close(predict([graph]), row)

    def test_collated_graphs_are_the_same(self, predict: Callable[[Any], Prediction]) -> None:
        graphs = sampled(8, 5)
        collated = GraphSet([*graphs, *sampled(3, 6)])
        close(predict(collated.take(np.arange(7, -1, -1))), predict(graphs[::-1]))


class TestLearning:
    def test_learns(self, make: Callable[..., GraphPredictor], graphs: Graphs) -> None:
        predictor = make(epochs=60).fit(graphs, measured(graphs))
        others = sampled(80, 7)
        prediction = predictor.predict(others)
        assert prediction.metrics == predictor.metrics_ == ("accuracy", "latency")
        y = measured(others)["accuracy"]
        assert np.abs(prediction["accuracy"].mean[:, 0] - y).mean() < 0.6 * y.std()
        assert predictor.losses_[-1] < predictor.losses_[0]

    def test_same_seed_same_result(
        self, make: Callable[..., GraphPredictor], graphs: Graphs
    ) -> None:
        y = measured(graphs)["accuracy"]
        found = []
        for state in (1, 2):
            torch.manual_seed(state)
            before = torch.get_rng_state()
            predictor = make(seed=3, epochs=2).fit(graphs, y).adapt("task", graphs, -y)
            tuned = predictor.fine_tune(graphs[:9], y[:9], adapters=["task"], epochs=2)
            assert torch.equal(before, torch.get_rng_state())
            found.append(
                [
                    predictor.predict(graphs).mean,
                    predictor.predict(graphs, adapters=["task"]).mean,
                    tuned.predict(graphs).mean,
                ]
            )
        np.testing.assert_array_equal(*found)
        other = make(seed=4, epochs=2).fit(graphs, y).predict(graphs).mean
        assert not np.allclose(other, found[0][0])

    def test_labels_that_are_nan_are_left_out(
        self, make: Callable[..., GraphPredictor], graphs: Graphs
    ) -> None:
        y = measured(graphs)["accuracy"]
        holes = y.copy()
        holes[[3, 8]] = np.nan
        kept = np.delete(np.arange(60), [3, 8])
        without = make(epochs=2).fit([graphs[i] for i in kept], y[kept])
        with_holes = make(epochs=2).fit(graphs, holes)
        assert with_holes.n_rows_ == 58
        np.testing.assert_array_equal(with_holes.predict(graphs).mean, without.predict(graphs).mean)

    def test_metrics_may_have_holes_of_their_own(
        self, make: Callable[..., GraphPredictor], graphs: Graphs
    ) -> None:
        y = measured(graphs)
        y["accuracy"][:30] = np.nan
        predictor = make(epochs=2).fit(graphs, y)
        assert predictor.n_rows_ == 60
        assert np.isfinite(predictor.predict(graphs).mean).all()

    def test_an_adapter_leaves_all_else_as_it_was(
        self, fitted: GraphPredictor, graphs: Graphs
    ) -> None:
        before = fitted.predict(graphs).mean, fitted.predict(graphs, adapters=["up"]).mean
        fitted.adapt("third", graphs, measured(graphs)["latency"], epochs=1)
        after = fitted.predict(graphs).mean, fitted.predict(graphs, adapters=["up"]).mean
        del fitted.adapters_["third"]
        for was, now in zip(before, after, strict=True):
            np.testing.assert_array_equal(was, now)

    def test_arguments_are_unchanged(
        self, make: Callable[..., GraphPredictor], graphs: Graphs
    ) -> None:
        y = measured(graphs)
        before = {name: column.copy() for name, column in y.items()}
        make(epochs=1).fit(graphs, y)
        for name, column in y.items():
            np.testing.assert_array_equal(column, before[name])

    def test_constant_labels(self, make: Callable[..., GraphPredictor], graphs: Graphs) -> None:
        prediction = make(epochs=1).fit(graphs, np.full(60, 0.1)).predict(graphs)
        np.testing.assert_allclose(prediction.mean, 0.1)
        np.testing.assert_array_equal(prediction.std, 0.0)

    def test_two_graphs(self, make: Callable[..., GraphPredictor], graphs: Graphs) -> None:
        prediction = make(epochs=1).fit(graphs[:2], [1.0, 2.0]).predict(graphs)
        assert np.isfinite(prediction.mean).all() and np.isfinite(prediction.std).all()

    def test_broken_input_is_refused(
        self, make: Callable[..., GraphPredictor], graphs: Graphs
    ) -> None:
        few, y = graphs[:5], np.arange(5.0)
        with pytest.raises(ValueError, match="at least 2 graphs"):
            make().fit(few, np.full(5, np.nan))
        with pytest.raises(ValueError, match="finite"):
            make().fit(few, np.append(y[:4], np.inf))
        with pytest.raises(ValueError, match="at least one metric"):
            make().fit(few, {})
        with pytest.raises(ValueError, match=r"shape \(5,\)"):
            make().fit(few, y[:4])
        with pytest.raises(ValueError, match="validation must lie"):
            make().fit(few, y, validation=1.0)

    def test_nothing_works_before_fit(
        self, make: Callable[..., GraphPredictor], graphs: Graphs, tmp_path: Path
    ) -> None:
        few, y = graphs[:5], np.arange(5.0)
        for call in (
            lambda p: p.predict(few),
            lambda p: p.embed(few),
            lambda p: p.adapt("task", few, y),
            lambda p: p.transfer(few, y),
            lambda p: p.fine_tune(few, y),
            lambda p: p.rescale(few, y),
            lambda p: p.few_shot(few, y),
            lambda p: p.save(tmp_path / "file"),
            lambda p: p.save_adapter("task", tmp_path / "file"),
            lambda p: p.load_adapter(tmp_path / "file"),
        ):
            with pytest.raises(NotFittedError, match="call fit first"):
                call(make())
        assert not (tmp_path / "file").exists()


class TestNames:
    def test_unknown_ones_are_refused(self, fitted: GraphPredictor, graphs: Graphs) -> None:
        y = np.arange(60.0)
        with pytest.raises(KeyError, match="must be one of up, down, but got 'left'"):
            fitted.predict(graphs, adapters=["left"])
        with pytest.raises(ValueError, match="one adapter, but got 2"):
            fitted.predict(graphs, adapters=["up", "down"])
        with pytest.raises(
            ValueError, match="must be one of equal, published, fitted, but got 'best'"
        ):
            fitted.transfer(graphs, y, weights="best")
        with pytest.raises(ValueError, match="must be one of ridge, gp, but got 'tree'"):
            fitted.few_shot(graphs, y, head="tree")

    def test_unknown_options_are_refused(self, graphs: Graphs) -> None:
        with pytest.raises(ValueError, match="must be one of default, published, but got 'gcn'"):
            GraphPredictor("gcn")
        for options, message in (
            ({"loss": "mae"}, "loss must be one of mse, rank, both, but got 'mae'"),
            ({"epochs": 0}, "epochs must be at least 1, but got 0"),
            ({"batch_size": 0}, "batch_size must be at least 1"),
            ({"learning_rate": 0.0}, "learning_rate must be positive"),
            ({"encoder_options": {"read_outs": ("max",)}}, "read_outs must be some of levels"),
        ):
            with pytest.raises(ValueError, match=message):
                GraphPredictor(**options).fit(graphs[:4], np.arange(4.0))


class TestTransfer:
    def test_a_vote_counts_as_ten_labels_do(self, fitted: GraphPredictor, graphs: Graphs) -> None:
        y = measured(graphs)["accuracy"]
        for n in (10, 40):
            few = fitted.few_shot(graphs[:n], y[:n], adapters=["up"])
            assert isinstance(few, FewShotPredictor) and few.vote is not None
            voted = fitted.transfer(graphs[:n], y[:n], adapters=["up"], weights="fitted")
            share = 10 / (n + 10)
            parts = replace(few, vote=None).predict(graphs), voted.predict(graphs)
            found = few.predict(graphs)
            for name in ("mean", "std"):
                of_head, of_vote = (getattr(part, name) for part in parts)
                mixed = (1 - share) * of_head + share * of_vote
                np.testing.assert_allclose(getattr(found, name), mixed)

    def test_adapters_that_agree_with_no_label_do_not_vote(
        self, fitted: GraphPredictor, graphs: Graphs
    ) -> None:
        few = fitted.few_shot(graphs[:9], np.full(9, 2.0), adapters=["up"])
        assert isinstance(few, FewShotPredictor) and few.vote is None
        np.testing.assert_allclose(few.predict(graphs).mean, 2.0)

    def test_units_are_those_of_the_few_labels(
        self, predict: Callable[[Any], Prediction], fitted: GraphPredictor, graphs: Graphs
    ) -> None:
        few = graphs[:20]
        y = measured(few)["accuracy"]
        for transfer in TRANSFERS.values():
            prediction = transfer(fitted, few, 100 + 0.01 * y).predict(graphs)
            assert (np.abs(prediction.mean - 100.9) < 0.5).all()

    def test_embeddings(self, fitted: GraphPredictor, graphs: Graphs) -> None:
        everything = fitted.embed(graphs)
        backbone = fitted.embed(graphs, adapters=())
        assert len(everything) == len(backbone) == 60
        width = everything.shape[1] - backbone.shape[1]
        assert width == 2 * (backbone.shape[1] - GraphSet(graphs).u.shape[1])
        np.testing.assert_array_equal(everything[:, : width // 2], backbone[:, : width // 2])


def test_the_std_is_the_size_of_the_errors(
    make: Callable[..., GraphPredictor], graphs: Graphs
) -> None:
    y, flops = measured(graphs), GraphSet(graphs).flops
    predictor = make(epochs=2).fit(graphs, y, validation=0)
    predictor.adapt("one", graphs, y["latency"], validation=0)
    one = predictor.adapters_["one"]
    found, adapted = predictor.predict(graphs), predictor.predict(graphs, adapters=["one"])
    for labels, std, prediction, name in [
        *((labels, std, found[metric], metric) for labels, std, metric in zip(
            predictor.labels_, predictor.std_, predictor.metrics_, strict=True)),
        (one.labels, one.std, adapted, "latency"),
    ]:  # fmt: skip
        errors = labels.transform(prediction.mean[:, 0], flops) - labels.transform(y[name], flops)
        assert std == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-3)


class TestUnknownGroups:
    def test_a_head_beside_the_adapter_is_averaged(
        self, fitted: GraphPredictor, graphs: Graphs, tmp_path: Path
    ) -> None:
        y = measured(graphs)["accuracy"]
        fitted.adapt("beside", graphs, y, epochs=2, head=True)
        both = fitted.adapters_.pop("beside")
        fitted.adapters_ |= {"beside": both, "alone": replace(both, head=None)}
        assert both.head is not None
        u = GraphSet(graphs).u
        z = [
            both.labels.transform(fitted.predict(graphs, adapters=["alone"]).mean[:, 0], u[:, 0]),
            both.head.predict(u)[0],
        ]
        mean, _ = both.labels.inverse(np.mean(z, axis=0), np.zeros(60), u[:, 0])
        found = fitted.predict(graphs, adapters=["beside"])
        np.testing.assert_allclose(found.mean[:, 0], mean, rtol=1e-5)
        fitted.save_adapter("beside", tmp_path / "beside")
        fitted.load_adapter(tmp_path / "beside")
        again = fitted.predict(graphs, adapters=["beside"])
        np.testing.assert_array_equal(again.mean, found.mean)
        apart = copy.deepcopy(both.module)
        last = apart.head.body[-1]
        assert isinstance(last, torch.nn.Linear)
        last.bias.data += 10
        fitted.adapters_["beside"] = replace(both, module=apart)
        assert (fitted.distance(graphs, adapter="beside") > 1).all()
        assert (fitted.distance(graphs, adapter="alone") <= 1).mean() > 0.8
        del fitted.adapters_["beside"], fitted.adapters_["alone"]

    def test_intervals_hold_as_often_as_they_say(
        self, fitted: GraphPredictor, graphs: Graphs
    ) -> None:
        y, groups = measured(graphs)["accuracy"], np.arange(60) % 5
        fitted.adapt("calibrated", graphs, y, epochs=2)
        predicted = fitted.predict(graphs, adapters=["calibrated"]).mean[:, 0]
        shifted = y + np.random.default_rng(0).normal(size=60)
        fitted.calibrate("calibrated", graphs, shifted, predicted, groups)
        low, high = fitted.predict(graphs, adapters=["calibrated"]).interval(0.8)
        assert 0.7 <= np.mean((low[:, 0] <= shifted) & (shifted <= high[:, 0])) <= 0.9
        for broken in (shifted[1:], np.where(groups == 0, np.nan, shifted)):
            with pytest.raises(ValueError, match="must be finite, of shape"):
                fitted.calibrate("calibrated", graphs, broken, predicted, groups)
        del fitted.adapters_["calibrated"]


class TestFiles:
    @pytest.fixture
    def folder(self, fitted: GraphPredictor, tmp_path: Path) -> Path:
        fitted.save(tmp_path / "backbone")
        fitted.save_adapter("up", tmp_path / "up")
        fitted.save_adapter("down", tmp_path / "down")
        return tmp_path

    def test_reload_predicts_the_same_to_the_bit(
        self, fitted: GraphPredictor, graphs: Graphs, folder: Path
    ) -> None:
        again = load_graph_predictor(folder / "backbone")
        assert [again.load_adapter(folder / name) for name in ("down", "up")] == ["down", "up"]
        assert repr(again) == repr(fitted)
        for adapters in (None, ["up"], ["down"]):
            before = fitted.predict(graphs, adapters=adapters)
            after = again.predict(graphs, adapters=adapters)
            assert before.metrics == after.metrics
            np.testing.assert_array_equal(before.mean, after.mean)
            np.testing.assert_array_equal(before.std, after.std)
        assert again.domain_.limit == fitted.domain_.limit
        again.save(folder / "backbone again")
        again.save_adapter("up", folder / "up again")
        for name in ("backbone", "up"):
            assert (folder / name).read_bytes() == (folder / f"{name} again").read_bytes()

    def test_half_as_large_and_nearly_the_same(
        self, fitted: GraphPredictor, graphs: Graphs, folder: Path
    ) -> None:
        fitted.save(folder / "half", half=True)
        assert (folder / "half").stat().st_size < 0.7 * (folder / "backbone").stat().st_size
        again = load_graph_predictor(folder / "half")
        before, after = fitted.predict(graphs), again.predict(graphs)
        assert (np.abs(before.mean - after.mean) < 0.1 * before.std).all()
        again.adapt("up", graphs, measured(graphs)["accuracy"], epochs=1)
        again.save_adapter("up", folder / "half up", half=True)
        assert load_graph_predictor(folder / "half").load_adapter(folder / "half up") == "up"

    def test_an_adapter_of_another_backbone_is_refused(
        self, make: Callable[..., GraphPredictor], graphs: Graphs, folder: Path
    ) -> None:
        other = make(seed=9, epochs=1).fit(graphs, measured(graphs))
        with pytest.raises(FileFormatError, match="must hold an adapter of this backbone"):
            other.load_adapter(folder / "up")
        with pytest.raises(FileFormatError, match="graph predictor, but is"):
            load_graph_predictor(folder / "up")
        with pytest.raises(FileFormatError, match="adapter, but is"):
            other.load_adapter(folder / "backbone")

    def test_damage_is_refused(self, folder: Path) -> None:
        whole = (folder / "backbone").read_bytes()
        header = 8 + int.from_bytes(whole[:8], "little")
        file = folder / "damaged"
        rng = np.random.default_rng(0)
        for offset in [
            0,
            7,
            8,
            header - 1,
            header,
            len(whole) - 1,
            *rng.integers(len(whole), size=9),
        ]:
            file.write_bytes(whole[: int(offset)])
            with pytest.raises(FileFormatError, match="must"):
                load_graph_predictor(file)
        for offset in [*range(0, header, header // 40), *rng.integers(header, len(whole), 20)]:
            flipped = bytearray(whole)
            flipped[int(offset)] ^= 1 << int(rng.integers(8))
            file.write_bytes(flipped)
            with pytest.raises(FileFormatError, match="must"):
                load_graph_predictor(file)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"version": 2}, "must have format version 1, but has 2"),
            ({"metrics": ["latency", "accuracy"]}, "checksum"),
            ({"features_version": 0}, "checksum"),
        ],
    )
    def test_another_description_is_refused(
        self, folder: Path, change: dict[str, Any], message: str
    ) -> None:
        file = folder / "backbone"
        data = file.read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:end])
        content = json.loads(header["__metadata__"]["description"])
        header["__metadata__"]["description"] = json.dumps(content | change)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        file.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
        with pytest.raises(FileFormatError, match=message):
            load_graph_predictor(file)

    def test_a_missing_file_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            load_graph_predictor(tmp_path / "none")


def test_another_process_predicts_the_same(tmp_path: Path) -> None:
    graphs = sampled(20)
    predictor = GraphPredictor(**QUICK["default"]).fit(graphs, measured(graphs))
    predictor.save(tmp_path / "p")
    for i, graph in enumerate(graphs[:3]):
        graph.save(tmp_path / f"{i}.json")
    script = """
import sys, numpy as np
from nni_aiop.graphs import ComputeGraph
from nni_aiop.predictors.graph import load_graph_predictor
folder = sys.argv[1]
graphs = [ComputeGraph.load(f"{folder}/{i}.json") for i in range(3)]
np.save(f"{folder}/found.npy", load_graph_predictor(f"{folder}/p").predict(graphs).mean)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=600)
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_allclose(found, predictor.predict(graphs[:3]).mean, rtol=1e-6)
