"""A search that is recorded as it goes on leaves the files that saving it whole leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nni_aiop.errors import SpaceError
from nni_aiop.history import HistoryRows
from nni_aiop.results import ResultsRecorder, SearchResults
from nni_aiop.search import Objective, RandomSearch
from nni_aiop.search_spaces import get_space
from nni_aiop.spaces import (
    CodeSpace,
    Condition,
    Constraint,
    Continuous,
    Nominal,
    Ordinal,
    Sample,
    SampleCost,
    Subset,
)

Metrics = Mapping[str, float] | None


def toy(**more: Any) -> CodeSpace:
    return CodeSpace(
        [
            Ordinal("depth", (1, 2, 4)),
            Nominal("op", ("conv", None, True)),
            Continuous("rate", 0.001, 1.0, log=True),
            Subset("inputs", (0, 1, 2), None),
        ],
        name="toy",
        conditions={"op": Condition("depth", (2, 4))},
        **more,
    )


def plain() -> CodeSpace:
    return toy(costs={"flops": lambda codes: 10 + 10 * codes[:, 0], "area": lambda c: c.sum(dim=1)})


def learned() -> CodeSpace:
    area = SampleCost(lambda s: None if s["op"] is None else s["depth"] * s["rate"])
    even = Constraint("at most two inputs", lambda s: len(s["inputs"]) < 3)
    return toy(costs={"area": area}, constraints=[even])


def one(i: int) -> Metrics:
    return None if i % 5 == 2 else {"acc": float((7 * i) % 11), "loss": 1 / (i + 1)}


def metric_comes_late(i: int) -> Metrics:
    return {"acc": float(i % 7)} | ({"extra": 1.0} if i > 12 else {})


def cost_as_metric(i: int) -> Metrics:
    return {"acc": float(i % 7)} | ({"flops": 3.0} if i > 5 else {})


def whole_numbers(i: int) -> Metrics:
    return {"acc": i % 7, "loss": np.float32(0.1)}


class Told:
    """A history as a search keeps it, and its recorder."""

    def __init__(self, folder: Path, space: CodeSpace, **more: Any) -> None:
        self.space, self.more = space, {"objectives": [Objective("acc")], **more}
        self.history: list[tuple[Sample, Metrics]] = []
        self.recorder = ResultsRecorder(folder, self.results)

    def results(self) -> SearchResults:
        return SearchResults(self.space, list(self.history), **self.more)

    def tell(self, sample: Sample, metrics: Metrics) -> None:
        self.history.append((sample, metrics))
        self.recorder.add(sample, metrics)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


TWO = [Objective("acc"), Objective("loss", "minimize", 2.0)]


@pytest.mark.parametrize(
    ("make", "metrics", "more"),
    [
        (plain, one, {}),
        (plain, one, {"objectives": TWO, "limits": {"flops": 16}}),
        (plain, one, {"limits": {"loss": 0.2}, "cost": "area", "settings": {"seed": 3}}),
        (learned, one, {"limits": {"area": 0.5}}),
        (plain, metric_comes_late, {}),
        (plain, cost_as_metric, {}),
        (plain, whole_numbers, {}),
        (plain, lambda i: None, {}),
        (toy, one, {}),
        (lambda: get_space("nasbench201"), one, {"limits": {"flops": 1e8}}),
    ],
)
def test_the_files_are_those_of_saving_it_whole(
    make: Any, metrics: Any, more: dict[str, Any], tmp_path: Path
) -> None:
    space = make()
    told = Told(tmp_path / "a", space, **more)
    for i, sample in enumerate(space.sample(20, np.random.default_rng(0))):
        told.tell(sample, metrics(i))
        if i == 7:
            told.recorder.write()
    told.recorder.write()
    SearchResults(make(), told.history, **told.more).save(tmp_path / "b", page=False)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_every_row_is_there_at_once(tmp_path: Path) -> None:
    told = Told(tmp_path / "a", plain())
    for i, sample in enumerate(told.space.sample(30, np.random.default_rng(0))):
        told.tell(sample, metric_comes_late(i) if i < 13 else {"acc": 1.0})
        told.results().write_history(tmp_path / "b.csv")
        assert (tmp_path / "a/history.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert list(files(tmp_path / "a")) == ["history.csv"]


def test_a_sample_that_is_told_again_changes_its_row(tmp_path: Path) -> None:
    space = plain()
    search = RandomSearch(space, objectives=["acc"])
    recorder = ResultsRecorder(
        tmp_path / "a", lambda: SearchResults(space, search.history, search.objectives)
    )
    asked = search.ask(40)
    for i, sample in enumerate([*asked, asked[3], asked[38]]):
        metrics = None if i == 3 else {"acc": float(i)}
        search.tell(sample, metrics)
        recorder.add(sample, metrics)
    recorder.write()
    SearchResults(space, search.history, search.objectives).save(tmp_path / "b", page=False)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert [m["acc"] for _, m in search.history if m][3] == 40.0


@pytest.mark.parametrize("damage", ["torn", "longer", "gone", "torn between"])
def test_the_file_of_a_killed_search_is_mended(damage: str, tmp_path: Path) -> None:
    space = plain()
    samples = space.sample(12, np.random.default_rng(0))
    told = Told(tmp_path / "a", space)
    for i, sample in enumerate(samples[:8]):
        told.tell(sample, one(i))
    path = tmp_path / "a/history.csv"
    if damage == "gone":
        path.unlink()
    elif damage == "longer":
        path.write_bytes(path.read_bytes() + b"9,1,\n")
    else:
        path.write_bytes(path.read_bytes()[:-4])
    if damage != "torn between":
        killed, told = told, Told(tmp_path / "a", space)
        told.history = killed.history[:7]  # the state may be older, or newer, than the rows
    for i, sample in enumerate(samples[8:]):
        told.tell(sample, one(i))
    SearchResults(space, told.history, **told.more).write_history(tmp_path / "b.csv")
    assert path.read_bytes() == (tmp_path / "b.csv").read_bytes()
    told.recorder.write()
    SearchResults(space, told.history, **told.more).save(tmp_path / "b", page=False)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_what_was_recorded_in_another_order_is_put_right(tmp_path: Path) -> None:
    space = plain()
    history = [(s, one(i)) for i, s in enumerate(space.sample(9, np.random.default_rng(0)))]
    told = Told(tmp_path / "a", space)
    for place in (0, 2, 1, 3, 5, 4, 8):
        told.recorder.add(*history[place])
    told.history = history
    told.recorder.write()
    SearchResults(space, history, **told.more).save(tmp_path / "b", page=False)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    told.history = history[:6]
    told.recorder.write()
    SearchResults(space, told.history, **told.more).save(tmp_path / "b", page=False)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_the_work_for_a_row_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = {"costs": 0, "rows": 0, "most rows": 0}

    def flops(codes: Any) -> Any:
        work["costs"] += len(codes)
        return codes[:, 0]

    written = HistoryRows.text

    def text(self: HistoryRows, samples: Any, *rest: Any) -> str:
        work["rows"] += len(samples)
        work["most rows"] = max(work["most rows"], len(samples))
        return written(self, samples, *rest)

    monkeypatch.setattr(HistoryRows, "text", text)
    told = Told(tmp_path, toy(costs={"flops": flops}))
    for i, sample in enumerate(told.space.sample(400, np.random.default_rng(0))):
        told.tell(sample, one(i))
        if i in (50, 399):
            told.recorder.write()
    assert work["costs"] == 400 and work["rows"] <= 403 and work["most rows"] <= 2
    for sample, _ in told.history[::2]:  # told again, and again
        told.recorder.add(sample, {"acc": 0.0})
    assert work["costs"] == 400 and work["rows"] <= 803


def test_results_are_whole_whenever_they_are_read(tmp_path: Path) -> None:
    told = Told(tmp_path, plain())
    for i, sample in enumerate(told.space.sample(5, np.random.default_rng(0))):
        told.tell(sample, one(i))
        if i % 2 == 0:
            told.recorder.write()
        assert json.loads((tmp_path / "results.json").read_text())["evaluations"] == i + 1 - i % 2


def test_a_metric_must_not_be_named_as_a_dimension(tmp_path: Path) -> None:
    told = Told(tmp_path, plain())
    told.tell(told.space.complete({}), {"acc": 1.0})
    with pytest.raises(SpaceError, match="'depth'"):
        told.tell(told.space.complete({"depth": 4}), {"acc": 1.0, "depth": 2.0})
