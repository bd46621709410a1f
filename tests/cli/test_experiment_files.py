"""Experiment files: read strictly, run alike on both engines, gone on with after a kill."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from nni_aiop.cli import app

ROOT = Path(__file__).parents[2]

# A measure of digits networks that takes no training, and tells a file of each call.
QUICK = """
import os, time

def measure(sample, pause=0.0, calls=None):
    if calls is not None:
        with open(calls, "a") as file:
            print(sorted(sample.items()), file=file)
    time.sleep(pause)
    return {"default": sample["width_1"] - 2.0 * sample["depth_1"] + sample["width_2"] / 3}
"""

BLOCK_NNI = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "nni":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""

EXPERIMENT: dict[str, Any] = {
    "experimentType": "nas",
    "trialConcurrency": 1,
    "maxTrialNumber": 12,
    "trainingService": {"platform": "local"},
    "executionEngine": {"name": "sequential"},
    "space": "digits",
    "evaluator": {"name": "quick:measure"},
    "strategy": {"name": "ncp", "rounds": 2, "warmup": 6},
    "seed": 3,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `quick.py`, which is the working folder."""
    (tmp_path / "quick.py").write_text(QUICK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "quick", raising=False)
    return tmp_path


def write(folder: Path, **fields: Any) -> Path:
    path = folder / "experiment.yml"
    path.write_text(yaml.safe_dump({**EXPERIMENT, **fields}))
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["run", *(str(a) for a in arguments)])


def succeed(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def command(prelude: str, *arguments: object) -> list[str]:
    code = f"{prelude}\nfrom nni_aiop.cli import main\nmain()"
    return [sys.executable, "-c", code, "run", *(str(a) for a in arguments)]


def rows(out: Path) -> list[dict[str, str]]:
    with open(out / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_both_engines_evaluate_the_same(folder: Path) -> None:
    pytest.importorskip("nni")
    file = write(folder)
    succeed(file, "--engine", "nni", "--out", folder / "nni")
    succeed(file, "--engine", "optuna", "--out", folder / "optuna")
    assert rows(folder / "nni") == rows(folder / "optuna")
    assert len(rows(folder / "nni")) == 12
    settings = json.loads((folder / "nni" / "results.json").read_text())["settings"]
    assert (settings["engine"], settings["seed"]) == ("nni", 3)


def test_without_nni_the_same_file_runs_on_optuna_and_says_so(folder: Path) -> None:
    file = write(folder)
    succeed(file, "--engine", "optuna", "--out", folder / "optuna")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command(BLOCK_NNI, file, "--out", folder / "auto"),
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    first, second = done.stdout.splitlines()[:2]
    assert first.startswith("NNI cannot be imported (No module named 'nni'")
    assert second.startswith("The best of 12 architectures")
    assert rows(folder / "auto") == rows(folder / "optuna")
    refused = subprocess.run(
        command(BLOCK_NNI, file, "--engine", "nni"), capture_output=True, text=True, env=environment
    )
    assert refused.returncode == 2
    assert "pip install 'nni-aiop[nni]'" in refused.stderr


@pytest.mark.slow
def test_training_service_runs_a_file(folder: Path) -> None:
    pytest.importorskip("nni")
    file = write(
        folder, executionEngine="ts", trialConcurrency=2, maxTrialNumber=3, strategy="random"
    )
    succeed(file, "--engine", "nni", "--out", folder / "ts")
    for row in rows(folder / "ts"):
        value = float(row["width_1"]) - 2 * float(row["depth_1"]) + float(row["width_2"]) / 3
        assert float(row["default"]) == pytest.approx(value)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["nni", "optuna"])
def test_a_killed_run_goes_on(folder: Path, engine: str) -> None:
    if engine == "nni":
        pytest.importorskip("nni")
    succeed(write(folder), "--engine", engine, "--out", folder / "whole")
    calls = folder / "calls.txt"
    file = write(folder, evaluator={"name": "quick:measure", "pause": 0.3, "calls": str(calls)})
    process = subprocess.Popen(
        command("", file, "--engine", engine, "--out", folder / "out"),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (calls.exists() and len(calls.read_text().splitlines()) >= 4):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "Going on with the run" in succeed(file, "--engine", engine, "--out", folder / "out")
    asked = calls.read_text().splitlines()
    assert len(set(asked)) == 12
    assert len(asked) <= 13, "at most the one that was under way is evaluated again"
    assert rows(folder / "out") == rows(folder / "whole")


def test_a_folder_belongs_to_one_experiment(folder: Path) -> None:
    arguments = ("--engine", "optuna", "--out", folder / "out")
    file = write(folder, strategy="random", maxTrialNumber=3)
    succeed(file, *arguments)
    assert "Going on" in succeed(write(folder, strategy="random", maxTrialNumber=5), *arguments)
    assert len(rows(folder / "out")) == 5
    other = invoke(file, "--seed", 9, *arguments)
    assert other.exit_code == 2
    assert "--restart" in other.stderr
    write(folder, strategy="random", maxTrialNumber=2)
    assert "Going on" not in succeed(file, "--seed", 9, "--restart", *arguments)
    assert len(rows(folder / "out")) == 2


def test_results_go_beside_the_name_of_the_file(folder: Path) -> None:
    succeed(write(folder, strategy="random", maxTrialNumber=2, engine="optuna"))
    assert len(rows(folder / "out" / "experiment")) == 2


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"tuner": {"name": "TPE"}}, "must only hold known fields, but has 'tuner'"),
        ({"executionEngine": {"name": "ts", "dummy": 1}}, "'executionEngine.dummy'"),
        ({"maxTrialNumber": 0}, "maxTrialNumber must be greater than or equal to 1, but got 0"),
        ({"maxTrialNumber": None}, "maxTrialNumber must be a valid integer, but got None"),
        ({"experimentType": "hpo"}, "experimentType must be 'nas', but got 'hpo'"),
        ({"engine": "ray"}, "engine must be 'auto', 'nni' or 'optuna', but got 'ray'"),
        ({"executionEngine": "pure"}, "executionEngine.name must be 'sequential' or 'ts'"),
        ({"trialConcurrency": 2}, "trialConcurrency must be 1 on the sequential engine"),
        ({"trainingService": {"platform": "aml"}}, "trainingService.platform must be 'local'"),
        ({"space": "nowhere"}, "a space must be one of"),
        ({"space": "quick:measure"}, "'quick:measure' must lead to a space"),
        ({"evaluator": {"epochs": 3}}, "must have the field 'evaluator.name'"),
        ({"evaluator": "nothing"}, "an evaluator must be one of"),
        ({"evaluator": {"name": "digits", "epoch": 3}}, "takes epochs, seed, but got 'epoch'"),
        ({"evaluator": {"name": "digits", "epochs": 0}}, "epochs must be at least 1, but got 0"),
        ({"evaluator": "table"}, "needs the path of a file"),
        ({"strategy": "tpe"}, "a search must be one of"),
        ({"strategy": {"name": "random", "rounds": 2}}, "'rounds'"),
        ({"strategy": {"name": "ncp", "warmup": 1.5}}, "fraction must lie in (0, 1)"),
        ({"strategy": {"name": "ncp", "limits": {"watts": 1}}}, "watts"),
        ({"strategy": {"name": "ncp", "limits": {"flops": 1}}}, "flops <= 1"),
    ],
)
@pytest.mark.parametrize("engine", ["nni", "optuna"])
def test_a_bad_file_gets_one_sentence(
    folder: Path, fields: dict[str, Any], sentence: str, engine: str
) -> None:
    if engine == "nni":
        pytest.importorskip("nni")
    result = invoke(write(folder, **{"engine": engine, **fields}))
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert sentence in line


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [1\n", "\x00", "3"])
def test_no_mapping_gets_one_sentence(folder: Path, text: str) -> None:
    path = folder / "bad.yml"
    path.write_text(text)
    result = invoke(path)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "bad.yml must" in line


EXAMPLES = sorted(p.name for p in (ROOT / "examples").glob("*.yml"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_are_valid(name: str) -> None:
    from nni_aiop.cli._experiment import read_experiment

    assert read_experiment(ROOT / "examples" / name).experimentType == "nas"
