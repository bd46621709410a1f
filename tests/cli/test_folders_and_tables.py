"""`predict` and `rank` of folders, and the CSVs that they write."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from nni_aiop.graphs import ComputeGraph, GraphWriter
from nni_aiop.predictors.graph import load_shipped_ranker, load_shipped_task
from nni_aiop.search_spaces import get_space
from tests.cli.command_line import invoke, refuse

TASK = "cifar100-nasbench201"


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, whose folder `nets` holds six cells at three depths, and other files."""
    space = get_space("nasbench201")
    assert space.graph is not None
    folder = tmp_path / "nets"
    for name in ("b", "a/deep", ".hidden"):
        (folder / name).mkdir(parents=True)
    places = ["b/1.json", "a/deep/2.json", "0.json", "a/3.json.gz", "b/4.json", ".hidden/5.json"]
    for place, sample in zip(places, space.sample(6, np.random.default_rng(1)), strict=True):
        space.graph(sample).save(folder / place)
    (folder / "notes.txt").write_text("no network")
    w = GraphWriter()
    w.output(w.zeros(w.input((1, 7))))
    w.graph().save(tmp_path / "foreign.json")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return folder


FOUND = ["nets/0.json", "nets/a/3.json.gz", "nets/a/deep/2.json", "nets/b/1.json", "nets/b/4.json"]
"""The networks of the folder: sorted, at any depth, none that is hidden."""


def table(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_is_predicted_into_a_csv(nets: Path) -> None:
    told = invoke("predict", "nets", "foreign.json", "--task", TASK, "--out", "new/p.csv")
    assert told.exit_code == 0, told.output
    rows = table("new/p.csv")
    assert list(rows[0]) == ["model", "task", "prediction", "from", "to", "inside"]
    assert [row["model"] for row in rows] == [*FOUND, "foreign.json"]
    graphs = [ComputeGraph.load(path) for path in FOUND]
    found = load_shipped_task(TASK).predict(graphs)
    low, high = found.interval(0.8)
    for row, *numbers in zip(rows[:-1], found.mean, low, high, strict=True):
        assert (row["task"], row["inside"]) == (TASK, "true")
        assert [float(row[k]) for k in ("prediction", "from", "to")] == pytest.approx(
            [float(number[0]) for number in numbers], rel=1e-6
        )
    outside = {"prediction": "", "from": "", "to": "", "inside": "false"}
    assert rows[-1] == {"model": "foreign.json", "task": TASK, **outside}
    assert "Written: new/p.csv" in told.stdout
    best = max(rows[:-1], key=lambda row: float(row["prediction"]))
    assert told.stdout.splitlines()[2].split()[0] == best["model"], "best first for people"


def test_several_tasks_are_rows_of_a_network(nets: Path) -> None:
    tasks = (TASK, "transnas-class-object")
    given = [word for task in tasks for word in ("--task", task)]
    told = invoke("predict", "nets/b", *given, "--out", "p.csv")
    assert told.exit_code == 0, told.output
    assert [(row["model"], row["task"]) for row in table("p.csv")] == [
        (model, task) for model in ("nets/b/1.json", "nets/b/4.json") for task in tasks
    ]


def test_nothing_is_overwritten_unasked(nets: Path) -> None:
    for command in (("predict", "nets", "--task", TASK), ("rank", "nets")):
        Path("p.csv").write_text("mine\n")
        assert "must not be overwritten unasked" in refuse(*command, "--out", "p.csv")
        assert Path("p.csv").read_text() == "mine\n"
        assert invoke(*command, "--out", "p.csv", "--overwrite").exit_code == 0
        assert len(table("p.csv")) == 5
        assert "--out must name a file .csv, but got p.txt" in refuse(*command, "--out", "p.txt")


def test_a_file_that_cannot_be_read_does_not_end_the_table(nets: Path) -> None:
    (nets / "a" / "broken.onnx").write_bytes(b"\x08")
    (nets / "results.json").write_text("{}")
    (nets / "b" / "cut.json.gz").write_bytes(gzip.compress(b"{}")[:9])
    told = invoke("predict", "nets", "--task", TASK, "--out", "p.csv")
    assert told.exit_code == 2
    assert [row["model"] for row in table("p.csv")] == FOUND
    named = [line.split(": ")[1] for line in told.stderr.splitlines()]
    assert named == ["nets/a/broken.onnx", "nets/b/cut.json.gz", "nets/results.json"]
    ranked = invoke("rank", "nets", "--out", "r.csv")
    assert ranked.exit_code == 2 and len(table("r.csv")) == 5
    assert [line.split(": ")[1] for line in ranked.stderr.splitlines()] == named


def test_where_nothing_is_predicted_the_csv_says_so(nets: Path) -> None:
    told = invoke("predict", "foreign.json", "--task", TASK, "--out", "p.csv")
    assert told.exit_code == 1
    assert [row["inside"] for row in table("p.csv")] == ["false"]


def test_a_folder_without_networks_is_refused(nets: Path) -> None:
    for command in (("predict", "empty", "--task", TASK), ("rank", "empty")):
        assert "a folder must hold files .onnx or .json, but empty holds none" in refuse(*command)


def test_a_folder_is_ranked_into_a_csv(nets: Path) -> None:
    assert invoke("rank", "nets", "--out", "r.csv").exit_code == 0
    graphs = [ComputeGraph.load(path) for path in FOUND]
    score = load_shipped_ranker().rank(graphs).score
    order = (-score).argsort(kind="stable").tolist()
    rows = table("r.csv")
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row["model"] for row in rows] == [FOUND[at] for at in order]
    assert [int(row["multiply_adds"]) for row in rows] == [graphs[at].macs for at in order]
