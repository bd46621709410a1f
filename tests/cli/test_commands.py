"""The command line: what it writes, what it says, and how it refuses."""

from __future__ import annotations

import importlib
import io
import json
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from nni_aiop.cli._app import BadInput
from nni_aiop.cli._progress import Spinner
from nni_aiop.results import SearchResults
from nni_aiop.search import Objective
from nni_aiop.search_spaces import get_space
from tests.cli.command_line import PATIENCE, invoke, refuse, rows, wait_until, work_in

PNG = b"\x89PNG\r\n\x1a\n"
COMMAND = [sys.executable, "-c", "from nni_aiop.cli import main; main()"]

# A space and an evaluator of a user's own, in a module beside the experiment file.
OWN = """
import time
from nni_aiop.spaces import CodeSpace, Nominal, Ordinal

def space():
    return CodeSpace(
        [Ordinal("depth", range(1, 9)), Ordinal("width", range(8, 65, 8)), Nominal("op", "abc")],
        name="own", costs={"flops": lambda codes: 1 + 7 * codes[:, 0] + 7 * codes[:, 1]},
    )

def measure(sample, scale=1.0, pause=0.0):
    time.sleep(pause)
    gain = {"a": 0.0, "b": 3.0, "c": 1.0}[sample["op"]]
    return {"default": scale * (sample["depth"] + gain - abs(sample["width"] - 40) / 16), "x": 1.0}
"""


def succeed(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `own.py`, which is the working folder."""
    return work_in(tmp_path, monkeypatch, "own", OWN)


def read(out: Path) -> Any:
    return json.loads((out / "results.json").read_text())


# --- help ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [[], ["search"], ["run"], ["predictor", "train"], ["predictor", "eval"], ["spaces", "show"]],
)
def test_help_teaches_by_example(command: Sequence[str]) -> None:
    assert "  nni-aiop " in succeed(*command, "--help")


def test_without_a_command_it_shows_the_help() -> None:
    assert "Begin with" in succeed()


def test_version() -> None:
    from nni_aiop import __version__

    told = succeed("--version")
    assert told.startswith(f"nni-aiop {__version__} (Python {platform.python_version()}, torch ")
    assert f"optuna {version('optuna')}" in told and told.count("\n") == 1


# --- spaces --------------------------------------------------------------------------


def test_spaces_list_and_show() -> None:
    listed = succeed("spaces", "list")
    assert all(name in listed for name in ("digits", "multi_resolution", "nasbench201", "flops"))
    shown = succeed("spaces", "show", "digits", "--seed", 3)
    assert "depth_1 in [1, 2]" in shown
    assert shown == succeed("spaces", "show", "digits", "--seed", 3)
    assert "params = " in shown


# --- search --------------------------------------------------------------------------


@pytest.mark.parametrize("search", ["ncp", "random", "evolution", "local", "topk"])
def test_search_writes_its_results(own: Path, search: str) -> None:
    arguments = ["search", "own:space", "--evaluator", "own:measure", "--budget", 8]
    arguments += ["--search", search, "--limit", "flops=9", "--seed", 4]
    assert "The best of 8 architectures" in succeed(*arguments, "--out", own / "a")
    succeed(*arguments, "--out", own / "b")
    found = rows(own / "a")
    assert found == rows(own / "b"), "the seed decides"
    assert len(found) == 8
    assert all(float(row["flops"]) <= 9 for row in found)
    best = read(own / "a")["best"]
    assert best["metrics"]["default"] == max(float(row["default"]) for row in found)
    assert (own / "a" / "search.png").read_bytes().startswith(PNG)


def test_search_of_several_metrics_with_a_cost(own: Path) -> None:
    succeed(
        *("search", "own:space", "--evaluator", "own:measure", "--metric", "default"),
        *("--metric", "x:minimize", "--cost", "flops", "--lam", 0.3, "--budget", 6),
    )
    assert [o["direction"] for o in read(own / "out/search")["objectives"]] == [
        "maximize",
        "minimize",
    ]


def test_search_trains_digits(tmp_path: Path) -> None:
    succeed("search", "digits", "--search", "random", "--budget", 2, "--out", tmp_path)
    assert all(0 < float(row["test_accuracy"]) <= 100 for row in rows(tmp_path))


def test_search_looks_a_table_up(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "nas_bench_201/data/nas-bench-201/trainval.pkl"
    succeed(
        *("search", "nasbench201", "--table", path, "--search", "random"),
        *("--metric", "Acc", "--budget", 30, "--out", tmp_path),
    )
    best = read(tmp_path)["best"]["metrics"]["Acc"]
    assert best == max(float(row["Acc"]) for row in rows(tmp_path))
    assert 30 < best <= 47.34
    for option, name in (("--metric", "accuracy"), ("--cost", "flop")):
        said = refuse("search", "nasbench201", "--table", path, option, name)
        assert f"{name!r}" in said and "Acc" in said


def test_ctrl_c_leaves_the_results_so_far(own: Path) -> None:
    (own / "slow.py").write_text("import own\ndef f(s): return own.measure(s, pause=0.5)\n")
    arguments = ["search", "own:space", "--evaluator", "slow:f", "--search", "random"]
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--budget", "400", "--out", "o"], stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: (own / "o" / "search.png").exists(), process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert 0 < len(rows(own / "o")) < 400
    assert read(own / "o")["evaluations"] == len(rows(own / "o"))


# --- predictor -----------------------------------------------------------------------


@pytest.fixture
def measured(own: Path) -> Path:
    """60 measured architectures of the user's space, as a search leaves them."""
    succeed(
        *("search", "own:space", "--evaluator", "own:measure", "--search", "random"),
        *("--budget", 60, "--out", own / "data"),
    )
    return own / "data" / "history.csv"


@pytest.mark.parametrize("model", ["gp", "ncp-mlp"])
def test_predictor_train_and_eval(own: Path, measured: Path, model: str) -> None:
    said = succeed(
        *("predictor", "train", measured, "--space", "own:space", "--metric", "default"),
        *("--model", model, "--out", own / "p"),
    )
    assert "Fitting 48 architectures, 12 held out: default" in said
    figures = read(own / "p")["metrics"]["default"]
    assert figures["mae"] >= 0 and 0 <= figures["coverage"] <= 1
    assert model != "gp" or figures["spearman"] > 0.9
    assert (own / "p" / "predictor.png").read_bytes().startswith(PNG)
    file = own / "p" / "predictor.safetensors"
    told = succeed("predictor", "eval", file, measured, "--space", "own:space", "--out", own / "e")
    assert "Spearman" in told
    assert read(own / "e")["rows"] == 60


def test_a_predictor_leads_a_search(own: Path, measured: Path) -> None:
    succeed(
        *("predictor", "train", measured, "--space", "own:space", "--metric", "default"),
        *("--holdout", 0, "--out", own / "p"),
    )
    succeed(
        *("search", "own:space", "--predictor", own / "p" / "predictor.safetensors"),
        *("--metric", "default", "--budget", 20, "--out", own / "s"),
    )
    assert len(rows(own / "s")) == 20
    said = refuse(
        *("search", "own:space", "--predictor", own / "p" / "predictor.safetensors"),
        *("--cost", "flop", "--out", own / "s"),
    )
    assert "a cost must be one of flops, default, default_std, but got 'flop'" in said


def test_predictor_learns_a_published_table(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "nas_bench_mr/data/seg/trainval.pkl"
    succeed(
        *("predictor", "train", path, "--space", "multi_resolution", "--metric", "mIoU"),
        *("--holdout", 0.9, "--out", tmp_path),
    )
    assert read(tmp_path)["metrics"]["mIoU"]["spearman"] > 0.8


# --- bad input -----------------------------------------------------------------------

FEW = ("search", "digits", "--budget", "1", "--out", "o")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("bogus",), "No such command"),
        (("search",), "Missing argument"),
        (("search", "digits", "--bogus"), "No such option"),
        (("search", "digits", "--budget", "0"), "--budget"),
        (("search", "digits", "--budget", "x"), "--budget"),
        (("search", "nowhere"), "must be one of digits"),
        (("search", "no_such_module:x"), "no_such_module"),
        ((*FEW, "--search", "tpe"), "a search must be one of ncp, random, evolution, topk"),
        ((*FEW, "--evaluator", "magic"), "an evaluator must be one of digits, table, predictor"),
        ((*FEW, "--evaluator", "os:nothing"), "os:nothing"),
        ((*FEW, "--limit", "flops"), "a limit must read COST=NUMBER"),
        ((*FEW, "--limit", "flops=nan"), "a limit must read COST=NUMBER"),
        ((*FEW, "--limit", "watts=3"), "a limit must name an exact cost"),
        ((*FEW, "--limit", "flops=10", "--search", "random"), "flops <= 10"),
        ((*FEW, "--metric", ":minimize"), "a metric must read NAME"),
        ((*FEW, "--metric", "accuracy"), "must be one of default, val_accuracy, test_accuracy"),
        ((*FEW, "--metric", "a", "--metric", "a"), "each metric must be given once, but got 'a'"),
        ((*FEW, "--metric", "a", "--metric", "a:minimize"), "each metric must be given once"),
        ((*FEW, "--cost", "flop"), "a cost must be one of flops, params"),
        ((*FEW, "--cost", "flops", "--search", "random"), "a cost to weigh needs one of ncp"),
        ((*FEW, "--cost", "flops", "--lam", "-1"), "lam must not be negative"),
        ((*FEW, "--table", "no.csv"), "no.csv must be usable, but is not: No such file"),
        ((*FEW, "--table", "."), "Is a directory"),
        ((*FEW, "--table", "a", "--predictor", "b"), "but got --table and --predictor"),
        ((*FEW, "--predictor", "own.py"), "own.py"),
        (("search", "own:space"), "needs --table or --predictor"),
        (("search", "own:measure"), "own:measure"),
        (("search", "own:space", "--evaluator", "digits"), "trains the space digits"),
        (("predictor", "train", "own.py"), "Missing option '--space'"),
        (("predictor", "train", "own.py", "--space", "own:space"), "own.py"),
        (("predictor", "train", "t.csv", "--space", "own:space", "--metric", "z"), "'z'"),
        (("predictor", "train", "t.csv", "--space", "own:space", "--model", "z"), "'z'"),
        (("predictor", "train", "t.csv", "--space", "own:space", "--holdout", "1"), "[0, 1)"),
        (("predictor", "train", "t.csv", "--space", "own:space", "--holdout", "0"), "2"),
        (("predictor", "eval", "t.csv", "t.csv", "--space", "own:space"), "t.csv"),
        (("spaces", "show", "nowhere"), "nowhere"),
        (("run", "no.yml"), "no.yml must be usable, but is not: No such file"),
    ],
)
def test_bad_input_gets_one_sentence(own: Path, arguments: Sequence[str], sentence: str) -> None:
    (own / "t.csv").write_text("depth,width,op,y\n1,8,a,2.0\n")
    assert sentence in refuse(*arguments)


def test_a_folder_that_cannot_be_written_is_refused_before_the_search(own: Path) -> None:
    (own / "file").write_text("")
    said = refuse("search", "own:space", "--evaluator", "own:measure", "--out", own / "file" / "o")
    assert "Not a directory" in said


def test_an_infeasible_search_loses_nothing(own: Path) -> None:
    samples = get_space("digits").from_points([[0] * 14])
    results = SearchResults(get_space("digits"), [(samples[0], {"y": 1.0})], [Objective("y")])
    results.save(own / "o")
    before = (own / "o" / "history.csv").read_bytes()
    refuse("search", "digits", "--limit", "flops=1", "--out", own / "o")
    assert (own / "o" / "history.csv").read_bytes() == before


def test_a_table_of_a_corner_of_the_space_is_refused(data_dir: Path, own: Path) -> None:
    path = data_dir / "nas_bench_mr/data/seg/trainval.pkl"
    assert "train a predictor" in refuse("search", "multi_resolution", "--table", path)


# --- evaluators that fail or do not tell what is asked -------------------------------

FLAKY = """
import own
calls = []

def fails_at(n):
    def f(sample):
        calls.append(sample)
        if len(calls) == n:
            raise RuntimeError("mine")
        return own.measure(sample)
    return f

first, third = fails_at(1), fails_at(3)

def depth(sample):
    calls.append(sample)
    return {"default": 1.0, "depth": 2.0}

def sometimes(sample):
    calls.append(sample)
    return {"default": float(len(calls)), **({"x": 1.0} if len(calls) != 2 else {})}
"""


@pytest.fixture
def flaky(own: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module `flaky`, whose list `calls` holds the samples that were evaluated."""
    (own / "flaky.py").write_text(FLAKY)
    monkeypatch.syspath_prepend(str(own))
    monkeypatch.delitem(sys.modules, "flaky", raising=False)
    return importlib.import_module("flaky")


def flaky_search(function: str, *arguments: object) -> tuple[object, ...]:
    search = ("search", "own:space", "--search", "random", "--budget", 6, "--out", "o")
    return *search, "--evaluator", f"flaky:{function}", *arguments


@pytest.mark.parametrize(("function", "place"), [("first", 0), ("third", 2)])
def test_an_evaluation_that_fails_is_counted(flaky: Any, function: str, place: int) -> None:
    said = succeed(*flaky_search(function))
    assert "Evaluations that failed: 1 of 6: RuntimeError: mine\n" in said
    assert [row["default"] == "" for row in rows(Path("o"))] == [i == place for i in range(6)]
    assert read(Path("o"))["failed"] == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("third", "--metric", "accuracy"),
            "must tell the metric 'accuracy', but tells default, x",
        ),
        (("third", "--search", "ncp", "--cost", "watts"), "must tell the metric 'watts'"),
        (("depth",), "must not be named as a dimension of the space, but got 'depth'"),
    ],
)
def test_a_function_that_does_not_tell_what_is_asked_ends_the_search_at_once(
    flaky: Any, arguments: Sequence[str], sentence: str
) -> None:
    assert sentence in refuse(*flaky_search(*arguments))
    assert len(flaky.calls) == 1


def test_a_metric_that_is_missing_later_is_a_failure(flaky: Any) -> None:
    succeed(*flaky_search("sometimes", "--metric", "x"))
    assert read(Path("o"))["failed"] == 1


def test_digits_tells_the_metrics_that_the_command_line_knows() -> None:
    from nni_aiop.cli._evaluators import make_measure

    space = get_space("digits")
    found = make_measure("digits", space, {"epochs": 1})(space.from_points([[0] * 14])[0])
    with pytest.raises(BadInput) as caught:
        make_measure("digits", space, {}, ["accuracy"])
    assert f"one of {', '.join(found)}, but got 'accuracy'" in str(caught.value)


# --- long work shows that it goes on ------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_spinner_turns_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nni_aiop.cli._progress._TURN", 0.01)
    terminal, file = Terminal(), io.StringIO()
    deadline = time.monotonic() + PATIENCE
    with Spinner("Fitting gp", terminal), Spinner("Fitting gp", file):
        while terminal.getvalue().count("Fitting gp: 0") < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert file.getvalue() == ""


@pytest.mark.parametrize("count", [3, 7])
def test_too_few_held_out_rows_are_told_before_the_fit(own: Path, count: int) -> None:
    lines = [f"{1 + i % 8},8,a,{i}" for i in range(count)]
    (own / "t.csv").write_text("\n".join(["depth,width,op,y", *lines, ""]))
    arguments = ("predictor", "train", "t.csv", "--space", "own:space", "--out", "p")
    assert "at least 2 rows held out (--holdout) must have every metric" in refuse(*arguments)
    assert not (own / "p" / "predictor.safetensors").exists()
    succeed(*arguments, "--holdout", 0)
