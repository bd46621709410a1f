"""What report.html says of a search, whatever the search has left."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nni_aiop.errors import FileFormatError, SpaceError
from nni_aiop.results import ResultsRecorder, SearchResults, write_report
from nni_aiop.search import Objective
from nni_aiop.search_spaces import get_space
from nni_aiop.spaces import CodeSpace, Continuous, Nominal, Ordinal, Sample
from tests.results.pages import NASTY, Shown, data_of, results, told, toy, written


def test_the_data_are_the_evaluations(tmp_path: Path) -> None:
    space, history = toy(), told(toy(), 20, failed=[3, 7])
    data = data_of(written(tmp_path, space, history, limits={"flops": 15.0}))
    expected = results(space, history, limits={"flops": 15.0})
    assert data["n"] == 20 and data["failed"] == [3, 7]
    assert data["best"] == expected.best and data["front"] == expected.front
    assert data["outside"] == [i for i in range(20) if i not in (3, 7) and not expected.feasible[i]]
    for i, (sample, metrics) in enumerate(history):
        active = space.canonical(sample)
        for d in data["dimensions"]:
            point = d["points"][i]
            value = d["values"][point] if point is not None and "values" in d else point
            assert value == active.get(d["label"]), (i, d["label"])
        assert data["metrics"]["accuracy"][i] == (metrics or {}).get("accuracy")
    assert data["costs"]["flops"] == pytest.approx(expected.costs["flops"].tolist())


def test_a_folder_shows_the_same_page_with_the_space_and_without(tmp_path: Path) -> None:
    space, history = toy(), told(toy(), 15)
    results(space, history).save(tmp_path)
    assert data_of((tmp_path / "report.html").read_text()) == data_of(
        write_report(tmp_path).read_text()
    )


def test_a_page_fetches_nothing(tmp_path: Path) -> None:
    shown = Shown(written(tmp_path, toy(), told(toy(), 12)))
    for tag, attributes in shown.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            address = attributes.get(name) or "data:"
            assert address.startswith(("data:", "#")), (tag, address)
    (policy,) = (a["content"] for t, a in shown.elements if a.get("http-equiv"))
    assert policy and "default-src 'none'" in policy and "http" not in policy


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    space = CodeSpace(
        [Nominal(NASTY, (NASTY, "</style>", "$x$")), Ordinal("depth", (1, 2, 4))], name=NASTY
    )
    rng = np.random.default_rng(0)
    history = [(s, {NASTY + "m": rng.random()}) for s in space.sample(10, rng)]
    settings = {"evaluator": NASTY, "command_line": {"same": f"nni-aiop search {NASTY}"}}
    more: dict[str, Any] = {"objectives": [Objective(NASTY + "m")], "settings": settings}
    page = written(tmp_path, space, history, **more)
    shown = Shown(page)
    # The data, plotly.js and our own script; what the name has of elements are none.
    assert [tag for tag, _ in shown.elements].count("script") == 3
    assert shown.text.count(NASTY) >= 4
    data = data_of(page)
    assert data["dimensions"][0]["label"] == NASTY and NASTY in data["dimensions"][0]["texts"]
    assert list(data["metrics"]) == [NASTY + "m"]


def _constant(space: CodeSpace) -> list[Any]:
    return [(sample, {"accuracy": 0.5}) for sample, _ in told(space, 12)]


def _nan(space: CodeSpace) -> list[Any]:
    return [(s, {"accuracy": math.nan, "loss": 1.0}) for s, _ in told(space, 12)]


@pytest.mark.parametrize(
    ("history", "says"),
    [
        ([], "Nothing has been evaluated yet."),
        (told(toy(), 1), "1 architecture evaluated"),
        (told(toy(), 6, failed=range(6)), "6 of 6 evaluations failed. No architecture was found"),
        (_nan(toy()), "No architecture was found that has a number"),
        (_constant(toy()), "accuracy was the same everywhere"),
        (told(toy(), 7), "At least 8 different evaluations"),
    ],
    ids=["empty", "one", "all failed", "nan", "constant", "few"],
)
def test_little_is_said_in_words(tmp_path: Path, history: Sequence[Any], says: str) -> None:
    page = written(tmp_path, toy(), history)
    assert says in " ".join(Shown(page).text.split())
    assert data_of(page)["n"] == len(history)


@pytest.mark.parametrize("d", [1, 60])
def test_one_dimension_and_sixty(tmp_path: Path, d: int) -> None:
    space = CodeSpace([Ordinal(f"x{i}", (1, 2, 4, 8)) for i in range(d)])
    rng = np.random.default_rng(0)
    history = [(s, {"accuracy": s["x0"] + 0.1 * rng.random()}) for s in space.sample(40, rng)]
    page = written(tmp_path, space, history)
    text = " ".join(Shown(page).text.split())
    if d == 1:
        assert "There is one dimension only" in text
    else:
        assert "Of 60 dimensions the 10 that matter most" in text
        data = data_of(page)
        assert len(data["axes"]) == 10 and data["axes"][0] == 0
        assert data["importance"]["labels"][0] == "x0"


def test_several_objectives_of_which_one_is_to_be_small(tmp_path: Path) -> None:
    space = toy()
    rng = np.random.default_rng(1)
    samples = space.sample(30, rng)
    history = [(s, {"accuracy": rng.random(), "ms": rng.random()}) for s in samples]
    objectives = [Objective("ms", "minimize"), Objective("accuracy")]
    found = results(space, history, objectives=objectives)
    page = written(tmp_path, space, history, objectives=objectives)
    data = data_of(page)
    assert data["front"] == found.front and data["best"] == found.best
    assert data["best"] == int(np.argmin(found.metrics["ms"]))
    assert [o["sign"] for o in data["objectives"]] == [-1.0, 1.0]
    assert "ms (less is better) and accuracy (more is better)" in Shown(page).text


def test_nnis_default_has_the_name_of_what_it_repeats(tmp_path: Path) -> None:
    history = [(s, {"default": m["accuracy"], **m}) for s, m in told(toy(), 12)]
    page = written(tmp_path, toy(), history, objectives=[Objective("default")])
    data = data_of(page)
    assert data["objectives"][0]["title"] == "accuracy" and list(data["metrics"]) == ["default"]
    assert "The aim: accuracy" in Shown(page).text


def test_the_best_are_drawn_where_their_space_draws(tmp_path: Path) -> None:
    space = get_space("digits")
    rng = np.random.default_rng(0)
    history = [(s, {"accuracy": rng.random()}) for s in space.sample(8, rng)]
    found = results(space, history)
    found.save(tmp_path)
    shown = Shown((tmp_path / "report.html").read_text())
    order = np.argsort(-found.metrics["accuracy"])[:5]
    assert {i for i in shown.ids if i.startswith("drawing-")} == {f"drawing-{i}" for i in order}
    assert found.evaluation(int(order[0]))["costs"]["flops"] > 0
    without = Shown(write_report(tmp_path).read_text())
    assert not any(i.startswith("drawing-") for i in without.ids)
    assert "--space module:attribute" in without.text
    with pytest.raises(SpaceError, match="the space must be digits"):
        write_report(tmp_path, space=toy())


def test_a_space_whose_drawing_fails_has_a_page(tmp_path: Path) -> None:
    def graph(sample: Sample) -> Any:
        raise RuntimeError("no such layer")

    space = toy().with_graph(graph)
    page = Shown(written(tmp_path, space, told(space, 9)))
    assert "not at hand" in page.text
    assert "cannot be drawn: no such layer" in Shown(
        write_report(tmp_path, space=space).read_text()
    ).text  # fmt: skip


def test_an_older_folder_has_a_page(tmp_path: Path) -> None:
    space, history = toy(), told(toy(), 25, failed=[2])
    results(space, history, limits={"flops": 100}).save(tmp_path, page=False)
    summary = json.loads((tmp_path / "results.json").read_text())
    for key in ("dimensions", "metrics", "costs"):
        del summary[key]
    (tmp_path / "results.json").write_text(json.dumps(summary))
    data = data_of(write_report(tmp_path).read_text())
    assert [d["label"] for d in data["dimensions"]] == list(space.labels)
    assert list(data["metrics"]) == ["accuracy"] and list(data["costs"]) == ["flops"]
    assert data["best"] == results(space, history).best and data["failed"] == [2]
    with_space = data_of(write_report(tmp_path, space=space).read_text())
    assert with_space["dimensions"][0]["values"] == [1, 2, 4]


def test_a_search_that_goes_on_has_a_page(tmp_path: Path) -> None:
    space, history = toy(), told(toy(), 12)
    so_far: list[Any] = []
    recorder = ResultsRecorder(tmp_path, lambda: results(space, so_far))
    for sample, metrics in history[:6]:
        so_far.append((sample, metrics))
        recorder.add(sample, metrics)
    recorder.write()
    assert not (tmp_path / "report.html").exists()
    for sample, metrics in history[6:10]:
        so_far.append((sample, metrics))
        recorder.add(sample, metrics)
    with open(tmp_path / "history.csv", "a") as file:
        file.write("10,4,po")  # a row is being written
    assert data_of(write_report(tmp_path).read_text())["n"] == 10
    recorder.write()
    assert data_of(recorder.write_page().read_text())["n"] == 10


def test_what_is_no_folder_of_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"with results\.json and history\.csv.* has none"):
        write_report(tmp_path)
    with pytest.raises(FileFormatError, match="is no folder"):
        write_report(tmp_path / "nowhere")
    results(toy(), told(toy(), 30)).save(tmp_path, page=False)
    history = (tmp_path / "history.csv").read_text()
    (tmp_path / "history.csv").write_text(history.replace(",conv,", ",gone,", 1))
    with pytest.raises(FileFormatError, match=r"'op' must be one of .*, but got 'gone'"):
        write_report(tmp_path)
    (tmp_path / "history.csv").write_text(history.replace("depth", "width", 1))
    with pytest.raises(FileFormatError, match="must be of one search"):
        write_report(tmp_path)
    for text in ("[]", "{", '{"objectives": []}', '{"objectives": [{"metric": 3}]}'):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(FileFormatError):
            write_report(tmp_path)


def test_values_that_look_alike_are_told_apart(tmp_path: Path) -> None:
    space = CodeSpace(
        [
            Nominal("flag", ("1", 1, True, None, "")),
            Nominal("shape", ((1, 2), "b", (3,))),
            Ordinal("many", range(0, 1_000_000, 7)),
            Ordinal("fine", tuple(float(i) / 3 for i in range(200))),
            Continuous("fixed", 2.0, 2.0),
        ]
    )
    rng = np.random.default_rng(0)
    history = [(s, {"accuracy": rng.random()}) for s in space.sample(60, rng)]
    data = data_of(written(tmp_path, space, history))
    for i, (sample, _) in enumerate(history):
        for d in data["dimensions"]:
            point = d["points"][i]
            value = d["values"][point] if "values" in d else point
            expected = sample[d["label"]]
            expected = list(expected) if isinstance(expected, tuple) else expected
            assert value == expected and isinstance(value, bool) == isinstance(expected, bool)


def test_writing_a_page_of_many_rows_takes_seconds(tmp_path: Path) -> None:
    import time

    space = toy()
    found: SearchResults = results(space, told(space, 5000))
    found.save(tmp_path, page=False)
    begun = time.monotonic()
    path = write_report(tmp_path)
    assert time.monotonic() - begun < 20 and path.stat().st_size < 8_000_000
    assert len(data_of(path.read_text())["metrics"]["accuracy"]) == 5000
