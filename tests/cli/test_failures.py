"""Evaluators that fail or hang: a search ends with the reason, and two never share a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command_line import invoke, wait_until, work_in

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from nni_aiop.cli import main; main()"]

EVALUATORS = """
import sys, time, os
import numpy as np
import torch

calls = []

def told(value):
    def f(sample):
        calls.append(sample)
        return value
    return f

def raises(sample, kind=RuntimeError):
    calls.append(sample)
    raise kind("mine")

def leaves(sample):
    calls.append(sample)
    sys.exit("gone")

none, text, several, nothing = told(None), told("high"), told([1, 2]), told({})
nan, infinite = told(float("nan")), told({"default": float("-inf"), "x": 1.0})
tensor = told(torch.tensor([1.0, 2.0]))
words = told({"default": "high"})
for name, f in list(globals().items()):
    if callable(f):
        f.__qualname__ = name

def heals(sample):
    calls.append(sample)
    if len(calls) < 5:
        raise RuntimeError("not yet")
    return float(sample["width_1"])

def mixed(sample):
    calls.append(sample)
    if len(calls) in (2, 3, 5):
        raise RuntimeError("odd" if len(calls) % 2 else "even")
    return float(sample["width_1"])

def held(sample):
    open("began", "w").close()
    time.sleep(600)

def needs_lr(sample, lr):
    return 1.0
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `evals.py`, which is the working folder."""
    return work_in(tmp_path, monkeypatch, "evals", EVALUATORS)


def arguments(folder: Path, front: str, evaluator: object, budget: int = 30) -> list[object]:
    """The command that evaluates on a front end: `search`, or `run` on an engine."""
    if front == "search":
        given = ["search", "digits", "--search", "random", "--budget", budget]
        return [*given, "--evaluator", evaluator, "--out", "o"]
    if front == "nni":
        pytest.importorskip("nni")
    experiment = {"maxTrialNumber": budget, "space": "digits", "evaluator": evaluator}
    (folder / "e.yml").write_text(json.dumps({**experiment, "strategy": "random"}))
    return ["run", "e.yml", "--engine", front, "--out", "o"]


FRONTS = ["search", "nni", "optuna"]


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize(
    ("evaluator", "reason"),
    [
        ("raises", "RuntimeError: mine"),
        ("leaves", "the evaluator must return, but left by SystemExit('gone')"),
        ("none", "none must return a number or a dict of numbers, but returned None"),
        ("text", "text must return a number or a dict of numbers, but returned 'high'"),
        ("several", "several must return a number or a dict of numbers, but returned [1, 2]"),
        ("tensor", "tensor must return a number or a dict of numbers, but returned tensor("),
        ("nothing", "nothing must return a number or a dict of numbers, but returned {}"),
        ("words", "words must return a number or a dict of numbers, but returned {'default': "),
        ("nan", "the evaluator told default = nan"),
        ("infinite", "the evaluator told default = -inf"),
    ],
)
def test_an_evaluator_that_always_fails_ends_with_the_reason(
    folder: Path, front: str, evaluator: str, reason: str
) -> None:
    result = invoke(*arguments(folder, front, f"evals:{evaluator}"))
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("nni-aiop: ") and reason in line and "--keep-going" in line
    assert f"Evaluations that failed: 5 of 5: {reason}" in result.stdout
    assert len(sys.modules["evals"].calls) == 5
    assert json.loads((folder / "o/results.json").read_text())["failed"] == 5


@pytest.mark.parametrize("front", FRONTS)
def test_keep_going_spends_the_budget(folder: Path, front: str) -> None:
    result = invoke(*arguments(folder, front, "evals:raises", 8), "--keep-going")
    assert result.exit_code == 0, result.output
    assert "Evaluations that failed: 8 of 8: RuntimeError: mine\n" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("front", FRONTS)
def test_a_small_budget_of_failures_ends_alike(folder: Path, front: str) -> None:
    result = invoke(*arguments(folder, front, "evals:none", 3))
    assert result.exit_code == 1, result.output
    assert "3 failed: none must return a number" in result.stderr
    assert "Evaluations that failed: 3 of 3: none must return" in result.stdout


@pytest.mark.parametrize("front", FRONTS)
def test_an_evaluator_that_heals_goes_on(folder: Path, front: str) -> None:
    result = invoke(*arguments(folder, front, "evals:heals", 12))
    assert result.exit_code == 0, result.output
    assert "Evaluations that failed: 4 of 12: RuntimeError: not yet\n" in result.stdout
    assert result.stderr == ""


def test_several_reasons_are_named_with_their_numbers(folder: Path) -> None:
    result = invoke(*arguments(folder, "search", "evals:mixed", 8))
    said = "failed: 3 of 8: RuntimeError: odd (2 times); RuntimeError: even (1 times)\n"
    assert said in result.stdout


@pytest.mark.parametrize("front", FRONTS)
def test_what_succeeded_once_is_not_given_up(folder: Path, front: str) -> None:
    """A run that goes on: the first part succeeded, and all of the second fails."""
    (folder / "later.py").write_text(
        "import os\n"
        "def f(sample):\n"
        "    if os.path.exists('broken'): raise RuntimeError('late')\n"
        "    return 1.0\n"
    )
    sys.modules.pop("later", None)
    assert invoke(*arguments(folder, front, "later:f", 3)).exit_code == 0
    (folder / "broken").touch()
    result = invoke(*arguments(folder, front, "later:f", 12))
    assert result.exit_code == 0, result.output
    assert "Evaluations that failed: 9 of 12: RuntimeError: late\n" in result.stdout


@pytest.mark.parametrize("front", FRONTS)
def test_arguments_that_a_function_does_not_take_are_told_at_once(folder: Path, front: str) -> None:
    given: object = {"name": "evals:none", "lr": 3} if front != "search" else "evals:needs_lr"
    result = invoke(*arguments(folder, front, given))
    assert result.exit_code == 2
    assert "must take a sample" in result.stderr and "lr" in result.stderr
    assert sys.modules["evals"].calls == []
    assert not (folder / "o").exists()


@pytest.mark.slow
def test_the_training_service_tells_the_reason(folder: Path) -> None:
    given = arguments(folder, "nni", "evals:raises")
    experiment = json.loads((folder / "e.yml").read_text())
    experiment |= {"executionEngine": "ts", "trialConcurrency": 2}
    (folder / "e.yml").write_text(json.dumps(experiment))
    result = invoke(*given)
    assert result.exit_code == 1, result.output
    assert "RuntimeError: mine (see o/nni/" in result.stderr.splitlines()[-1]
    assert "Evaluations that failed: 5 of 5: RuntimeError: mine" in result.stdout


@pytest.mark.parametrize("front", FRONTS)
def test_two_at_once_in_one_folder(folder: Path, front: str) -> None:
    command = [*COMMAND, *map(str, arguments(folder, front, "evals:held"))]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: (folder / "began").exists(), process)
        before = {p: p.read_bytes() for p in (folder / "o").iterdir() if p.is_file()}
        for again in ((), ("--restart",)):
            for other in FRONTS:
                result = invoke(*arguments(folder, other, "evals:none", 2), *again)
                assert result.exit_code == 2, result.output
                (line,) = result.stderr.splitlines()
                assert f"process {process.pid} on " in line and " since " in line
        assert {p: p.read_bytes() for p in (folder / "o").iterdir() if p.is_file()} == before
    finally:
        process.kill()
        process.wait()
    result = invoke(*arguments(folder, front, "evals:none", 2), "--restart")
    assert result.exit_code == 1


@pytest.mark.parametrize("front", FRONTS)
def test_ctrl_c_says_how_far_it_came_and_goes_on(folder: Path, front: str) -> None:
    (folder / "stop.py").write_text(
        "calls = []\n"
        "def f(sample):\n"
        "    calls.append(sample)\n"
        "    if len(calls) == 4: raise KeyboardInterrupt\n"
        "    return float(sample['width_1'])\n"
    )
    sys.modules.pop("stop", None)
    result = invoke(*arguments(folder, front, "stop:f", 9))
    assert result.exit_code == 130, result.output
    said = result.stderr.splitlines()[-1]
    how_far = "3 of 9 evaluated. The results are in o; the same command goes on from here."
    assert said == f"Interrupted: {how_far}"
    assert json.loads((folder / "o/results.json").read_text())["evaluations"] == 3
    result = invoke(*arguments(folder, front, "stop:f", 9))
    assert result.exit_code == 0 and "Going on with the " in result.stdout
    assert json.loads((folder / "o/results.json").read_text())["evaluations"] == 9
