"""A user's function names its metrics as it likes; `default` is for those who name none."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from nni_aiop.cli import app
from tests.cli.command_line import work_in

EVALUATORS = """
import numpy as np
import torch

calls = []

def both(sample):
    calls.append(sample)
    return {"acc": sample["width_1"] + 0.1 * sample["width_2"], "lat": 2.0 * sample["width_1"]}

def arrays(sample):
    found = both(sample)
    return {"acc": np.float32(found["acc"]), "lat": torch.tensor(found["lat"]), "note": "kept out"}

def bare(sample):
    return both(sample)["acc"]

def both_default(sample):
    return {"default": 1.0, **both(sample)}
"""

FRONTS = ["search", "nni", "optuna"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `two.py`, which is the working folder."""
    return work_in(tmp_path, monkeypatch, "two", EVALUATORS)


def found(front: str, evaluator: str, metrics: list[str], search: str = "random") -> Result:
    """What a front end does that searches for some metrics: `search`, or `run` on an engine."""
    if front == "search":
        options = [word for metric in metrics for word in ("--metric", metric)]
        given = ["search", "digits", "--search", search, "--budget", "8", "--out", "o", *options]
        return CliRunner().invoke(app, [*given, "--evaluator", evaluator])
    if front == "nni":
        pytest.importorskip("nni")
    strategy: dict[str, Any] = {"name": search} | ({"objectives": metrics} if metrics else {})
    experiment = {"maxTrialNumber": 8, "space": "digits", "evaluator": evaluator}
    Path("e.yml").write_text(json.dumps({**experiment, "strategy": strategy}))
    return CliRunner().invoke(app, ["run", "e.yml", "--engine", front, "--out", "o"])


def rows() -> list[dict[str, str]]:
    with open("o/history.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("evaluator", ["both", "arrays", "bare"])
def test_one_metric_of_a_users_function(folder: Path, front: str, evaluator: str) -> None:
    result = found(front, f"two:{evaluator}", ["acc"])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    best = json.loads(Path("o/results.json").read_text())["best"]["metrics"]
    values = [int(row["width_1"]) + 0.1 * int(row["width_2"]) for row in rows()]
    assert [float(row["acc"]) for row in rows()] == pytest.approx(values)
    assert best["acc"] == pytest.approx(max(values))
    assert set(best) == ({"acc"} if evaluator == "bare" else {"acc", "lat"})


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("search", ["random", "ncp"])
def test_two_metrics_of_a_users_function(folder: Path, front: str, search: str) -> None:
    result = found(front, "two:both", ["acc", "lat:minimize"], search)
    assert result.exit_code == 0, result.output
    results = json.loads(Path("o/results.json").read_text())
    assert [(o["metric"], o["direction"]) for o in results["objectives"]] == [
        ("acc", "maximize"),
        ("lat", "minimize"),
    ]
    assert results["failed"] == 0 and len(rows()) == 8
    best = results["best"]["metrics"]["acc"]
    assert best == pytest.approx(max(float(row["acc"]) for row in rows()))


@pytest.mark.parametrize("front", FRONTS)
def test_a_metric_to_minimise(folder: Path, front: str) -> None:
    assert found(front, "two:both", ["lat:minimize"]).exit_code == 0
    best = json.loads(Path("o/results.json").read_text())["best"]["metrics"]["lat"]
    assert best == min(float(row["lat"]) for row in rows())


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize(
    ("evaluator", "metrics", "wanted", "given"),
    [
        ("both", [], "both must return a number or a dict with 'default'", "are acc, lat."),
        ("both", ["accuracy"], "must tell the metric 'accuracy'", "tells acc, lat."),
        ("both", ["acc", "ms:minimize"], "must tell the metric 'ms'", "tells acc, lat."),
        ("bare", ["acc", "lat"], "must tell the metric 'acc'", "tells default."),
        ("both_default", ["x"], "must tell the metric 'x'", "tells default, acc, lat."),
    ],
)
def test_wanted_and_given_names_are_told_at_once(
    folder: Path, front: str, evaluator: str, metrics: list[str], wanted: str, given: str
) -> None:
    result = found(front, f"two:{evaluator}", metrics)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert wanted in line and line.endswith(given)
    assert metrics or ("--metric" in line and "objectives" in line)
    assert len(sys.modules["two"].calls) == 1


def test_default_is_explained_where_it_appears() -> None:
    for command in ("search", "run"):
        said = " ".join(CliRunner().invoke(app, [command, "--help"]).output.split())
        assert "default` is maximised: a function's bare number" in said


@pytest.mark.slow
@pytest.mark.parametrize("metrics", [["acc"], ["acc", "lat:minimize"]])
@pytest.mark.parametrize("evaluator", ["both", "bare"])
def test_on_the_training_service(folder: Path, metrics: list[str], evaluator: str) -> None:
    pytest.importorskip("nni")
    experiment = {"maxTrialNumber": 2, "space": "digits", "evaluator": f"two:{evaluator}"}
    experiment |= {"strategy": {"name": "random", "objectives": metrics}, "executionEngine": "ts"}
    Path("e.yml").write_text(json.dumps(experiment))
    result = CliRunner().invoke(app, ["run", "e.yml", "--engine", "nni", "--out", "o"])
    if evaluator == "bare" and len(metrics) > 1:
        assert result.exit_code == 2
        said = result.stderr.splitlines()[-1]
        assert "a result must have acc, lat, but lacks acc, lat: it has default" in said
    else:
        assert result.exit_code == 0, result.output
        assert all(float(row["acc"]) > 0 for row in rows())
