"""Whatever goes wrong is one sentence: modules, functions, storages and options of the user's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command_line import invoke

ROOT = Path(__file__).parents[2]

MODULES = {
    "mod_syntax": "def f(:\n",
    "mod_import": "raise RuntimeError('at\\nimport')\n",
    "mod_exit": "import sys\nsys.exit('bye')\n",
    "mod_missing": "import no_such_package\n",
    "mod_null": "x = 1\0\n",
    "mod_good": """
from nni_aiop.spaces import CodeSpace, Ordinal

def space(**options):
    return CodeSpace([Ordinal("a", range(1, 9)), Ordinal("b", range(1, 9))], name="good", **options)

def costly():
    def cost(codes):
        raise RuntimeError("no cost")
    return space(costs={"c": cost})

def raises():
    raise RuntimeError("boom")

def leaves():
    raise SystemExit(3)

class Bad:
    def __init__(self):
        raise ValueError("bad init")

class Odd:
    @property
    def x(self):
        raise LookupError("odd")

odd = Odd()

def measure(sample):
    return float(sample["a"])
""",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the modules, which is the working folder."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


def refuse(*arguments: object) -> str:
    """The one sentence with which the command refuses."""
    result = invoke(*arguments)
    assert result.exit_code == 2, (arguments, result.output, result.exception)
    (line,) = result.stderr.splitlines()
    assert line.startswith("nni-aiop: ")
    return line


def experiment(**fields: Any) -> tuple[str, ...]:
    given = {"maxTrialNumber": 3, "space": "mod_good:space", "evaluator": "mod_good:measure"}
    given |= {"strategy": "random", "engine": "optuna"}
    Path("e.yml").write_text(json.dumps(given | fields))
    return "run", "e.yml", "--out", "o"


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("mod_syntax:f", "SyntaxError: "),
        ("mod_import:f", "RuntimeError: at import"),
        ("mod_exit:f", "SystemExit: bye"),
        ("mod_missing:f", "No module named 'no_such_package'"),
        ("mod_null:f", "null bytes"),
        ("mod_good:raises", "RuntimeError: boom"),
        ("mod_good:leaves", "SystemExit: 3"),
        ("mod_good:Bad", "ValueError: bad init"),
        ("mod_good:odd.x", "LookupError: odd"),
        ("..mod_good:space", "..mod_good:space"),
    ],
)
def test_modules_and_functions_that_raise(folder: Path, reference: str, words: str) -> None:
    given = ("--evaluator", "mod_good:measure", "--out", "o")
    for command in (
        ("spaces", "show", reference),
        ("search", reference, *given),
        ("generate", "--space", reference, "--budget", "c=1"),
        ("predict", reference, "--task", "imagenet-top1", "--input", "1x3"),
        ("graph", reference, "--input", "1x3", "--out", "o"),
        experiment(space=reference),
    ):
        assert words in refuse(*command)
    if not reference.startswith("mod_good"):
        assert words in refuse("search", "mod_good:space", "--evaluator", reference, "--out", "o")
        assert words in refuse(*experiment(evaluator=reference))
    assert not (folder / "o").exists()


def test_a_cost_that_raises_is_a_sentence_with_its_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (
        ("spaces", "show", "mod_good:costly"),
        ("search", "mod_good:costly", "--evaluator", "mod_good:measure", "--budget", 2),
    ):
        said = refuse(*command)
        assert "RuntimeError: no cost" in said and "mod_good.py, line 9" in said
    monkeypatch.setenv("NNI_AIOP_TRACEBACK", "1")
    assert isinstance(invoke("spaces", "show", "mod_good:costly").exception, RuntimeError)


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("sqlite:////proc/nope.db", "unable to open database file"),
        ("sqlite:///notes.csv", "file is not a database"),
        ("notes.csv", "begins with b'not a journal"),
        ("mod_good.py", "begins with"),
        ("/proc/nope.journal", "No such file or directory"),
        ("nonsense://x", "nonsense"),
        ("postgresql://me:secret@127.0.0.1:1/db", "me:***@127.0.0.1"),
        ("redis://127.0.0.1:1", "redis"),
        ("http://[::1", "http"),
        ("://", "://"),
    ],
)
def test_storages_that_cannot_be_opened(folder: Path, storage: str, words: str) -> None:
    (folder / "notes.csv").write_text("not a journal\n")
    said = refuse(*experiment(storage=storage))
    assert "a storage must be" in said and words in said and "secret" not in said
    assert (folder / "notes.csv").read_text() == "not a journal\n"
    assert not (folder / "o").exists()


@pytest.mark.parametrize("budget", [10**12, 10**30])
def test_huge_budgets(folder: Path, budget: int) -> None:
    for search in ("ncp", "random"):
        given = ("--search", search, "--evaluator", "mod_good:measure", "--out", "o")
        assert "1000000" in refuse("search", "mod_good:space", "--budget", budget, *given)
        assert "1000000" in refuse(*experiment(maxTrialNumber=budget, strategy=search))
    assert "1000000" in refuse(*experiment(strategy={"name": "ncp", "budget": budget}))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"strategy": {"name": "ncp", "warmup": "x"}}, "warmup='x'"),
        ({"strategy": {"name": "ncp", "warmup": None}}, "warmup=None"),
        ({"strategy": {"name": "evolution", "population": "x"}}, "population='x'"),
        ({"strategy": {"name": "random", "limits": 5}}, "limits=5"),
        ({"strategy": {"name": "topk", "exploration": "x"}}, "exploration"),
        ({"evaluator": {"name": "table", "path": 5}}, "path of the evaluator table"),
        ({"evaluator": {"name": "predictor", "path": [1]}}, "path of the evaluator predictor"),
        ({"evaluator": {"name": "mod_good:measure", "x": 1}}, "must take a sample, x"),
    ],
)
def test_options_of_another_kind(folder: Path, fields: dict[str, Any], words: str) -> None:
    assert words in refuse(*experiment(**fields))


def test_small_words(folder: Path) -> None:
    (folder / "empty.yml").write_text("")
    assert "but is empty" in refuse("run", "empty.yml")
    assert f"(looked for in {os.getcwd()})" in refuse("graph", "missing.onnx")
    assert "NUL" in refuse(*experiment(out="a\0b")[:2])


@pytest.mark.parametrize("group", ["spaces", "predictor"])
def test_a_group_without_a_command_shows_its_help(group: str) -> None:
    result = invoke(group)
    assert result.exit_code == 0 and result.stderr == ""
    assert result.stdout == invoke(group, "--help").stdout
    assert len(result.stdout.splitlines()) > 5


def test_the_package_is_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nni_aiop", "--version"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() and done.stderr == ""
