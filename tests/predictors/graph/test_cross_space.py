"""Rankings of networks of spaces that no label is known of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import NotFittedError

from nni_aiop.errors import FileFormatError
from nni_aiop.files import read_described, write_described
from nni_aiop.graphs import ComputeGraph, GraphWriter
from nni_aiop.predictors.graph import (
    CrossSpaceRanker,
    NetworkPool,
    load_cross_space_ranker,
)
from nni_aiop.predictors.graph._trees import Trees
from nni_aiop.predictors.metrics import spearman
from nni_aiop.search_spaces import get_space

Known = tuple[list[ComputeGraph], list[float]]


def depth_of(sample: dict[str, Any]) -> float:
    """Convolutions of 3x3 pixels on the longest way through a cell of four nodes."""
    conv = {edge: "3x3" in op for edge, op in sample.items()}
    dead = {edge: op == "none" for edge, op in sample.items()}
    longest = [0.0, -np.inf, -np.inf, -np.inf]
    for to in (1, 2, 3):
        for source in range(to):
            edge = f"op_{source}{to}"
            if not dead[edge]:
                longest[to] = max(longest[to], longest[source] + conv[edge])
    return float(max(longest[3], -1))


def known(name: str, n: int, seed: int = 0) -> Known:
    space = get_space(name)
    samples = space.sample(n, np.random.default_rng(seed))
    return [space.graph(sample) for sample in samples], [depth_of(sample) for sample in samples]


@pytest.fixture(scope="module")
def ranker() -> CrossSpaceRanker:
    return CrossSpaceRanker().fit({"201": known("nasbench201", 300)})


@pytest.fixture(scope="module")
def unknown() -> Known:
    return known("transnas101_micro", 200)


class TestRanking:
    def test_it_carries_depth_over_to_another_space(
        self, ranker: CrossSpaceRanker, unknown: Known
    ) -> None:
        graphs, y = unknown
        found = ranker.rank(graphs)
        macs = [graph.macs for graph in graphs]
        assert spearman(y, found.score) > max(0.8, spearman(y, macs))
        assert 0.5 < found.agreement <= 1
        assert ranker.spaces_ == {"201": int(np.sum(np.array(known("nasbench201", 300)[1]) >= 0))}

    def test_networks_that_read_nothing_come_last(
        self, ranker: CrossSpaceRanker, unknown: Known
    ) -> None:
        graphs, y = unknown
        found = ranker.rank(graphs)
        assert found.constant.tolist() == [label < 0 for label in y]
        assert found.score[found.constant].max() < found.score[~found.constant].min()

    def test_members_that_contradict_each_other_leave_the_order_of_macs(
        self, ranker: CrossSpaceRanker, unknown: Known, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pool = NetworkPool(unknown[0])
        rng = np.random.default_rng(0)
        monkeypatch.setattr(Trees, "predict", lambda _, x: rng.normal(size=len(x)))
        found = ranker.rank(pool)
        assert found.agreement < 0.1
        lives = ~found.constant
        assert spearman(pool.macs[lives], found.score[lives]) > 0.99

    def test_a_pool_is_the_same_as_its_graphs(
        self, ranker: CrossSpaceRanker, unknown: Known
    ) -> None:
        pool = NetworkPool(unknown[0])
        assert ranker.rank(pool).score.tolist() == ranker.rank(unknown[0]).score.tolist()
        part = ranker.rank(pool.take(np.arange(50)))
        assert part.score.tolist() == ranker.rank(unknown[0][:50]).score.tolist()

    def test_several_tasks_of_a_space_are_one_label(self, unknown: Known) -> None:
        graphs, y = unknown
        both = np.column_stack([y, 100 + 3 * np.array(y)])
        one, two = (
            CrossSpaceRanker().fit({"m": (graphs, labels)}).rank(graphs) for labels in (y, both)
        )
        assert one.score.tolist() == two.score.tolist()

    def test_networks_of_one_size_and_shape_are_no_trouble(self, ranker: CrossSpaceRanker) -> None:
        (graph, *_), _ = known("nasbench201", 1)
        found = ranker.rank([graph] * 6)
        assert np.ptp(found.score) == 0 and found.agreement == 0
        found = ranker.rank([ComputeGraph([], [])] * 5)
        assert found.constant.all() and np.ptp(found.score) == 0 and found.agreement == 0


class TestEstimate:
    def test_a_few_labels_give_units(self, ranker: CrossSpaceRanker, unknown: Known) -> None:
        graphs, labels = unknown
        y = 50 + 10 * np.array(labels)
        few = np.where(np.arange(len(y)) < 20, y, np.nan)
        found = ranker.estimate(graphs, few, metric="accuracy")
        assert found.metrics == ("accuracy",) and found.mean.shape == (200, 1)
        rest = slice(20, None)
        constant = np.abs(y[rest] - y[:20].mean()).mean()
        assert np.abs(found.mean[rest, 0] - y[rest]).mean() < constant / 2
        assert spearman(y[rest], found.mean[rest, 0]) > 0.8
        inside = np.abs(found.mean[rest, 0] - y[rest]) < 1.2816 * found.std[rest, 0]
        assert 0.6 < inside.mean() < 0.99

    def test_many_labels_that_are_predicted_well_are_no_trouble(
        self, ranker: CrossSpaceRanker, unknown: Known, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("nni_aiop.predictors.graph.cross_space._TEMPER", 10.0)  # as of 9,000
        pool = NetworkPool(unknown[0])
        y = pool.u[:, 1] + pool.ways[:, 0]
        y[150:] = np.nan
        found = ranker.estimate(pool, y)
        assert np.isfinite(found.mean).all() and np.isfinite(found.std).all()

    def test_labels_that_are_all_the_same_are_predicted_everywhere(
        self, ranker: CrossSpaceRanker, unknown: Known
    ) -> None:
        y = np.where(np.arange(200) < 8, 3.0, np.nan)
        assert ranker.estimate(unknown[0], y).mean == pytest.approx(3.0)

    @pytest.mark.parametrize(
        ("y", "words"),
        [
            (np.full(200, np.nan), "at least 5 networks must be labelled, but 0 of 200 are"),
            (np.ones(3), r"of shape \(200,\)"),
            (np.full(200, np.inf), "must be finite"),
        ],
    )
    def test_labels_that_will_not_do(
        self, ranker: CrossSpaceRanker, unknown: Known, y: Any, words: str
    ) -> None:
        with pytest.raises(ValueError, match=words):
            ranker.estimate(unknown[0], y)


class TestErrors:
    def test_what_cannot_be_learned(self, unknown: Known) -> None:
        graphs, y = unknown
        w = GraphWriter()
        w.output(w.zeros(w.input((1, 3, 8, 8))))
        for spaces, words in [
            ({}, "at least one space"),
            ({"a": (graphs, y[:3])}, r"labels of 'a' must have shape \(200,\)"),
            ({"a": (graphs[:2], y[:2])}, "at least 5 networks"),
            ({"a": ([w.graph()] * 9, np.ones(9))}, "but has 0"),
            ({"a": (graphs, [np.nan] * 200)}, "must be finite"),
        ]:
            with pytest.raises(ValueError, match=words):
                CrossSpaceRanker().fit(spaces)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="rows must be at least 2"):
            CrossSpaceRanker(rows=1)

    def test_what_cannot_be_ranked(self, ranker: CrossSpaceRanker, unknown: Known) -> None:
        with pytest.raises(ValueError, match=r"at least 5 networks of a space .* but got 4"):
            ranker.rank(unknown[0][:4])
        with pytest.raises(NotFittedError, match="call fit first"):
            CrossSpaceRanker().rank(unknown[0])
        with pytest.raises(NotFittedError, match="call fit first"):
            CrossSpaceRanker().save("never.safetensors")


class TestFiles:
    def test_a_ranker_ranks_the_same_from_its_file(
        self, ranker: CrossSpaceRanker, unknown: Known, tmp_path: Path
    ) -> None:
        ranker.save(tmp_path / "ranker.safetensors")
        again = load_cross_space_ranker(tmp_path / "ranker.safetensors")
        assert again.rank(unknown[0]).score.tolist() == ranker.rank(unknown[0]).score.tolist()
        assert again.spaces_ == ranker.spaces_ and repr(again) == repr(ranker)

    @pytest.mark.parametrize(
        "damage",
        ["truncated", "columns", "member", "place", "threshold", "missing", "one", "roots"],
    )
    def test_a_damaged_file_is_told(
        self, ranker: CrossSpaceRanker, tmp_path: Path, damage: str
    ) -> None:
        path = tmp_path / "ranker.safetensors"
        ranker.save(path)
        content, arrays = read_described(
            path, "description", kind="nni-aiop cross-space ranker", version=1, what="a ranker"
        )
        arrays = {name: array.copy() for name, array in arrays.items()}
        name = content["members"][0]
        if damage == "columns":
            content["columns"] = content["columns"][:-1]
        elif damage == "member":
            content["members"][0] = "all-both-free"
        elif damage == "place":
            arrays[f"{name}.left"][0] = 10**8
        elif damage == "threshold":
            arrays[f"{name}.threshold"][0] = np.nan
        elif damage == "roots":
            arrays[f"{name}.root"] = np.zeros(10**6, np.int32)
        elif damage == "missing":
            del arrays[f"{name}.root"]
        elif damage == "one":
            content["members"] = content["members"][:1]
        write_described(path, "description", content, arrays)
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(FileFormatError):
            load_cross_space_ranker(path)


class TestTrees:
    @pytest.mark.parametrize("signs", [None, [1, 0, -1]])
    def test_they_predict_what_scikit_learn_does(
        self, signs: list[int] | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(400, 3)).round(1)
        y, weights = x[:, 0] - np.abs(x[:, 2]) + rng.normal(size=400), rng.uniform(1, 2, 400)
        fitted = []
        fit = HistGradientBoostingRegressor.fit

        def remembered(self: Any, *arguments: Any) -> Any:
            fitted.append(self)
            return fit(self, *arguments)

        monkeypatch.setattr(HistGradientBoostingRegressor, "fit", remembered)
        trees = Trees.fit(x, y, weights, signs, 0)
        new = rng.normal(size=(500, 3))
        assert trees.predict(new) == pytest.approx(fitted[0].predict(new), abs=1e-9)
        if signs:
            risen = new + np.array([1.0, 0.0, -1.0])
            assert (trees.predict(risen) >= trees.predict(new) - 1e-12).all()
