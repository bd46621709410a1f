"""Experiment files: read strictly, run alike on both engines, gone on with after a kill."""

from __future__ import annotations

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
from nni_aiop.cli._experiment import Experiment
from tests.cli.command_line import rows, work_in

ROOT = Path(__file__).parents[2]

# A measure of digits networks that takes no training, and tells a file of each call.
QUICK = """
import os, time

def measure(sample, calls=None):
    if calls is not None:
        with open(calls, "a") as file:
            print(sorted(sample.items()), file=file)
        if os.path.exists(calls + ".hold") and len(open(calls).readlines()) == 4:
            time.sleep(600)
    return {"default": sample["width_1"] - 2.0 * sample["depth_1"] + sample["width_2"] / 3}

def nameless(sample):
    return {"accuracy": 1.0}
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
    return work_in(tmp_path, monkeypatch, "quick", QUICK)


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
    calls, hold = folder / "calls.txt", folder / "calls.txt.hold"
    hold.touch()  # the fourth evaluation waits to be killed
    file = write(folder, evaluator={"name": "quick:measure", "calls": str(calls)})
    process = subprocess.Popen(
        command("", file, "--engine", engine, "--out", folder / "out"),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 600  # only against hanging
    while not (calls.exists() and len(calls.read_text().splitlines()) == 4):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hold.unlink()
    assert "Going on with the run" in succeed(file, "--engine", engine, "--out", folder / "out")
    asked = calls.read_text().splitlines()
    assert len(set(asked)) == 12
    assert len(asked) == 13, "the one that was under way is evaluated again"
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


def refuse(*arguments: object) -> str:
    """The one sentence with which the command refuses."""
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


def test_a_run_goes_on_with_its_engine_only(folder: Path) -> None:
    pytest.importorskip("nni")
    file = write(folder, strategy="random", maxTrialNumber=3)
    succeed(file, "--engine", "optuna", "--out", "o")
    said = refuse(file, "--engine", "nni", "--out", "o")
    assert "o holds one of optuna, not of nni" in said
    assert "Going on" in succeed(file, "--engine", "optuna", "--out", "o")
    assert "Going on" not in succeed(file, "--engine", "nni", "--restart", "--out", "o")
    assert "o holds one of nni, not of optuna" in refuse(file, "--engine", "optuna", "--out", "o")


@pytest.mark.parametrize("name", ["state.json", "optuna.journal"])
def test_the_state_of_another_program_is_refused(folder: Path, name: str) -> None:
    file = write(folder, strategy="random", maxTrialNumber=2)
    (folder / "o").mkdir()
    (folder / "o" / name).write_text("{}")
    assert f"o must be empty or hold a run of the same experiment, but holds {name}" in refuse(
        file, "--engine", "optuna", "--out", "o"
    )
    assert (folder / "o" / name).read_text() == "{}"
    succeed(file, "--engine", "optuna", "--restart", "--out", "o")


def test_restart_deletes_this_experiments_study_in_the_storage(folder: Path) -> None:
    calls = folder / "calls.txt"
    measure = {"name": "quick:measure", "calls": str(calls)}

    def run(seed: int, *arguments: object) -> int:
        """The number of evaluations that a run made."""
        calls.write_text("")
        file = write(
            folder,
            evaluator=measure,
            strategy="random",
            maxTrialNumber=3,
            storage="sqlite:///studies.db",
        )
        succeed(file, "--engine", "optuna", "--seed", seed, "--out", f"o{seed}", *arguments)
        return len(calls.read_text().splitlines())

    assert run(1) == 3
    assert run(2) == 3, "another experiment has another study in the same storage"
    assert run(1) == 0
    assert run(1, "--restart") == 3
    assert run(2) == 0


def test_no_password_of_a_storage_is_written() -> None:
    for url, shown in (
        ("postgresql://me:s:e/c@ret@host/db", "postgresql://me:***@host/db"),
        ("mysql://me@host/db?Password=secret&x=1", "mysql://me@host/db?Password=***&x=1"),
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("studies.journal", "studies.journal"),
    ):
        experiment = Experiment(**EXPERIMENT, storage=url)
        assert (experiment.record["storage"], experiment.identity["storage"]) == (shown, shown)


def test_what_is_written_of_a_storage_has_no_password(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nni_aiop.engines.optuna_storage as engine

    monkeypatch.setattr(engine, "open_storage", lambda storage: None)
    file = write(
        folder, strategy="random", maxTrialNumber=2, storage="postgresql://me:secret@host/db"
    )
    succeed(file, "--engine", "optuna", "--out", "o")
    for name in ("experiment.json", "results.json"):
        assert "me:***@host" in (folder / "o" / name).read_text()
        assert "secret" not in (folder / "o" / name).read_text()


COMMON = {
    "trialGpuNumber": 1,
    "maxExperimentDuration": "1h",
    "debug": False,
    "trainingService": {"platform": "local", "useActiveGpu": True, "gpuIndices": [0]},
}


def test_common_fields_of_nni_without_effect_are_told(folder: Path) -> None:
    file = write(folder, strategy="random", maxTrialNumber=2, **COMMON)
    assert (
        "Without effect here: maxExperimentDuration, debug, trialGpuNumber, "
        "trainingService.useActiveGpu, trainingService.gpuIndices."
        in succeed(file, "--engine", "optuna", "--out", "o")
    )


def test_fields_of_the_training_service_reach_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nni")
    import nni_aiop.engines.nni_experiment as engine

    given: dict[str, Any] = {}
    monkeypatch.setattr(engine, "run_nni", lambda *a, **options: given.update(options))
    file = write(folder, strategy="random", executionEngine="ts", **COMMON)
    said = succeed(file, "--engine", "nni", "--out", "o")
    assert "Without effect here: maxExperimentDuration, debug." in said
    assert given["training_service"] == {
        "trial_gpu_number": 1,
        "use_active_gpu": True,
        "gpu_indices": [0],
    }


@pytest.mark.parametrize("engine", ["nni", "optuna"])
def test_a_first_result_that_does_not_do_ends_a_run(folder: Path, engine: str) -> None:
    if engine == "nni":
        pytest.importorskip("nni")
    calls = folder / "calls.txt"
    file = write(
        folder,
        evaluator={"name": "quick:measure", "calls": str(calls)},
        strategy={"name": "ncp", "rounds": 2, "warmup": 6, "cost": "flop"},
    )
    assert "must tell the metric 'flop'" in refuse(file, "--engine", engine, "--out", "o")
    assert len(calls.read_text().splitlines()) == 1
    file = write(folder, evaluator="quick:nameless", strategy="random")
    result = invoke(file, "--engine", engine, "--restart", "--out", "o")
    assert result.exit_code == 2
    said = result.stderr.splitlines()[-1]  # below Optuna's own word on a failed trial
    assert said.startswith("nni-aiop: nameless must return a number or a dict with 'default'")


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
        (
            {"strategy": {"name": "ncp", "cost": "flop"}, "evaluator": "digits"},
            "a cost must be one of flops, params",
        ),
        ({"trialGpuNumber": 1}, "trainingService.useActiveGpu must be true or false"),
        ({"trainingService": {"maxTrialNumberPerGpu": 2}}, "must stand beside a trialGpuNumber"),
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


@pytest.mark.parametrize("engine", ["nni", "optuna"])
@pytest.mark.parametrize(
    ("strategy", "sentence"),
    [
        ({"targets": 5}, "by the names of costs, but got 5"),
        ({"targets": {"flops": "low"}}, "must be finite numbers, but got 'low'"),
        ({"target": {"flops": 1e5}}, "must be one of budget, cost, "),
        ({"targets": {"flops": 10}}, "but of those found the cheapest, activation="),
        ({"targets": {"watts": 5}}, "must tell the metric 'watts'"),
        ({"cost": "default"}, "an objective must be left"),
        ({"objectives": "ms"}, "must be a list such as"),
    ],
)
def test_a_wrong_strategy_is_one_sentence(
    folder: Path, engine: str, strategy: dict[str, Any], sentence: str
) -> None:
    if engine == "nni":
        pytest.importorskip("nni")
    file = write(folder, strategy={"name": "pnag", **strategy})
    result = invoke(file, "--engine", engine, "--out", folder / "out")
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())


def test_several_objectives_of_a_file(folder: Path) -> None:
    (folder / "two.py").write_text(
        "def measure(s): return {'default': s['width_1'] + s['width_2'], 'ms': 2.0 * s['width_1']}"
    )
    quick = {"pool": 50, "evaluator_steps": 10, "generator_steps": 3, "rounds": 2}
    strategy = {"name": "pnag", "objectives": ["default", "ms:minimize"], **quick}
    file = write(folder, strategy=strategy, evaluator={"name": "two:measure"}, maxTrialNumber=8)
    succeed(file, "--engine", "optuna", "--out", folder / "out")
    results = json.loads((folder / "out" / "results.json").read_text())
    assert [o["direction"] for o in results["objectives"]] == ["maximize", "minimize"]
    assert len(results["front"]) >= 1 and results["failed"] == 0
