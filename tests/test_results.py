"""Files of a search: written whole or not at all, read back as they were."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nni_aiop.errors import FileFormatError, SpaceError
from nni_aiop.files import write_atomically, write_json
from nni_aiop.history import check_names, read_history
from nni_aiop.results import SearchResults, pareto_front
from nni_aiop.search import Objective
from nni_aiop.spaces import (
    CodeSpace,
    Condition,
    Continuous,
    Dimension,
    Nominal,
    Ordinal,
    Sample,
    Subset,
)

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def space() -> CodeSpace:
    return CodeSpace(
        [
            Ordinal("depth", (1, 2, 4)),
            Nominal("op", ("conv", None, True)),
            Continuous("rate", 0.001, 1.0, log=True),
            Subset("inputs", (0, 1, 2), None),
        ],
        name="toy",
        conditions={"op": Condition("depth", (2, 4))},
        costs={"flops": lambda codes: 10 + 10 * codes[:, 0]},
    )


def some(space: CodeSpace, n: int) -> list[tuple[Sample, Mapping[str, float] | None]]:
    rng = np.random.default_rng(0)
    return [(s, {"accuracy": float(rng.random())}) for s in space.sample(n, rng)]


def test_pareto_front_of_five_points() -> None:
    points = [(1, 5), (2, 4), (2, 3), (3, 1), (np.nan, 9)]
    assert pareto_front(points).tolist() == [True, True, False, True, False]


def test_equal_points_share_the_front() -> None:
    assert pareto_front([(1, 1), (1, 1)]).tolist() == [True, True]


@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_the_front_is_what_comparing_all_pairs_finds(m: int, levels: int) -> None:
    rng = np.random.default_rng(m)
    values = rng.integers(0, levels, (200, m)).astype(float)
    values[rng.random(values.shape) < 0.02] = np.nan
    known = ~np.isnan(values).any(axis=1)
    at_least = (values[:, None] >= values).all(axis=2) & (values[:, None] > values).any(axis=2)
    expected = known & ~at_least[known].any(axis=0)
    assert pareto_front(values).tolist() == expected.tolist()
    assert pareto_front(values[:0]).tolist() == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_json(tmp_path / "deep" / "a.json", {"x": np.float32(1), "y": float("nan")})
    assert json.loads(path.read_text()) == {"x": 1.0, "y": None}
    with pytest.raises(TypeError):
        write_atomically(path, 5)  # type: ignore[arg-type]
    assert json.loads(path.read_text()) == {"x": 1.0, "y": None}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_history_comes_back(space: CodeSpace, tmp_path: Path) -> None:
    history = some(space, 30)
    history[3] = (history[3][0], None)
    SearchResults(space, history, [Objective("accuracy")]).save(tmp_path)
    samples, metrics = read_history(tmp_path / "history.csv", space, ["accuracy"])
    assert [space.key(s) for s in samples] == [space.key(s) for s, _ in history]
    expected = [np.nan if m is None else m["accuracy"] for _, m in history]
    np.testing.assert_array_equal(metrics["accuracy"], expected)
    assert list(read_history(tmp_path / "history.csv", space)[1]) == ["accuracy", "flops"]


def test_best_keeps_the_limits_and_the_direction(space: CodeSpace, tmp_path: Path) -> None:
    samples = space.from_points([[0, 0, 0.1, 1], [1, 0, 0.1, 1], [2, 0, 0.1, 1]])
    history = list(zip(samples, [{"error": 3.0}, {"error": 2.0}, {"error": 1.0}], strict=True))
    objectives = [Objective("error", "minimize")]
    results = SearchResults(space, history, objectives)
    assert (results.best, results.front) == (2, [0, 1, 2])
    limited = SearchResults(space, history, objectives, limits={"flops": 15})
    assert (limited.best, limited.front) == (1, [0, 1])
    limited.save(tmp_path)
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["best"]["number"] == 1
    assert written["best"]["costs"] == {"flops": 15.0}
    assert written["best"]["sample"] == {"depth": 2, "op": "conv", "rate": 0.1, "inputs": [0]}
    assert (tmp_path / "search.png").read_bytes().startswith(PNG)


def test_a_picture_numbers_as_the_files_do(
    space: CodeSpace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from nni_aiop.results import _search_results

    history = [(sample, {"y": float(i == 3)}) for i, (sample, _) in enumerate(some(space, 6))]
    results = SearchResults(space, history, [Objective("y")])
    drawn: list[Any] = []
    monkeypatch.setattr(_search_results, "save_figure", lambda figure, path: drawn.append(figure))
    results.draw(tmp_path / "a.png", baseline=("random", results))
    progress, scatter, *_ = drawn[0].axes
    (points,) = progress.collections
    numbers = points.get_offsets()[:, 0].tolist()
    assert numbers == list(range(6)) and points.get_offsets()[results.best, 1] == 1.0
    assert results.evaluation(3)["number"] == results.best == 3
    assert scatter.collections[-1].get_array().tolist() == numbers


@pytest.mark.parametrize("history", [[], "failed"])
def test_nothing_found_is_still_written(space: CodeSpace, tmp_path: Path, history: Any) -> None:
    if history:
        history = [(sample, None) for sample, _ in some(space, 2)]
    results = SearchResults(space, history, [Objective("accuracy")])
    results.draw(tmp_path / "two.png", baseline=("random", results))
    results.save(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["best"] is None


def test_a_metric_must_not_be_named_as_a_dimension(space: CodeSpace, tmp_path: Path) -> None:
    results = SearchResults(space, [(space.complete({}), {"depth": 1.0})], [Objective("depth")])
    with pytest.raises(SpaceError, match="'depth'"):
        results.save(tmp_path)


def test_names_are_checked_before_there_is_a_result(space: CodeSpace) -> None:
    check_names(space, ["accuracy"])
    with pytest.raises(SpaceError, match="'rate'"):
        check_names(space, ["accuracy", "rate"])


def comes_back(space: CodeSpace, samples: list[Sample], folder: Path, metric: str = "y") -> None:
    history = [(sample, {metric: float(i)}) for i, sample in enumerate(samples)]
    SearchResults(space, history, [Objective(metric)]).save(folder)
    read, metrics = read_history(folder / "history.csv", space)
    assert [space.complete(sample) for sample in read] == samples
    assert metrics[metric].tolist() == list(range(len(samples)))


def test_a_dimension_or_a_metric_may_be_called_number(tmp_path: Path) -> None:
    space = CodeSpace([Ordinal("number", (5, 6, 7)), Nominal("op", "ab")])
    comes_back(space, space.sample(6, np.random.default_rng(0)), tmp_path / "a")
    other = CodeSpace([Ordinal("depth", (5, 6, 7))])
    comes_back(other, [{"depth": 7}, {"depth": 5}], tmp_path / "b", metric="number")


@pytest.mark.parametrize(
    "dimension",
    [
        Nominal("x", ((1, 2), (1,), ())),
        Nominal("x", (1, "1", "a,b")),
        Nominal("x", (None, "None", True, "")),
        Nominal("x", (True, 1, 1.0)),
        Nominal("x", (0.1, "nan", 3)),
        Ordinal("x", (0.5, 1, 2.5)),
        Ordinal("x", (False, True)),
        Ordinal("x", range(1, 10**9)),
        Continuous("x", 1, 5),
        Subset("x", ((1, 2), "a", None, "(1, 2)"), None),
        Subset("x", (1, "1", True), 2),
        Subset("x", ((1, 2), [1, 2]), None),
    ],
)
def test_every_value_comes_back(dimension: Dimension, tmp_path: Path) -> None:
    space = CodeSpace([dimension])
    points = dimension.options(5)
    samples = space.from_points(points[:, None])
    comes_back(space, samples, tmp_path)
    read, _ = read_history(tmp_path / "history.csv", space)
    assert [repr(sample) for sample in read] == [repr(sample) for sample in samples]


@pytest.mark.parametrize("text", ["0.5", "abc", "1e99", "nan", "-3"])
def test_a_stranger_in_a_long_range_is_refused_at_once(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"n,y\n{text},1\n")
    with pytest.raises(FileFormatError, match="line 2: 'n' must be one of"):
        read_history(tmp_path / "a.csv", CodeSpace([Ordinal("n", range(1, 10**9))]))


def test_values_written_by_hand_are_read(tmp_path: Path) -> None:
    space = CodeSpace([Nominal("a", (1, 2)), Nominal("b", ((1, 2), ())), Ordinal("c", range(9))])
    (tmp_path / "a.csv").write_text('a,b,c,y\n1.0,"[1,2]",8.0,3\n')
    assert read_history(tmp_path / "a.csv", space)[0] == [{"a": 1, "b": (1, 2), "c": 8}]


def test_costs_are_those_of_the_canonical_sample(space: CodeSpace) -> None:
    dear = CodeSpace(
        space.dimensions,
        conditions={"op": Condition("depth", (2, 4))},
        costs={"flops": lambda codes: codes[:, 1:4] @ torch.tensor([1.0, 2, 3], dtype=codes.dtype)},
    )
    full = dear.from_points([[0, 2, 0.1, 1]])  # depth 1: op is inactive, but given
    assert SearchResults(dear, [(full[0], None)], [Objective("y")]).costs["flops"].tolist() == [1]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("depth,op,rate,inputs,y,y\n1,,0.1,[],1,2\n", "must name each column differently"),
        ("", "a heading and at least one row"),
        ("depth,op,rate,accuracy\n1,,0.1,2\n", "must have a column 'inputs'"),
        ("depth,op,rate,inputs,accuracy\n1,,0.1\n", "line 2: a row must have 5 cells"),
        ('depth,op,rate,inputs,accuracy\n3,,0.1,"[0, 1]",2\n', "'depth' must be one of"),
        ('depth,op,rate,inputs,accuracy\n1,,0.1,"[0, 1]",two\n', "must be a number, but got 'two'"),
        ('depth,op,rate,inputs,accuracy\n2,,0.1,"[0, 1]",2\n', "every active label"),
    ],
)
def test_a_bad_file_is_refused(space: CodeSpace, tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=sentence):
        read_history(path, space)
